"""CLIP's byte-pair vocabulary as a ``tokenizer.json``."""

import gzip
import importlib.util
import json
from functools import cache
from pathlib import Path
from typing import Any

from ptft.errors import ModelError

__all__ = [
    "END_OF_TEXT",
    "OLD_MARKS",
    "START_OF_TEXT",
    "SWALLOWED",
    "clip_bpe_json",
    "rename_marks",
]

START_OF_TEXT, END_OF_TEXT = "<start_of_text>", "<end_of_text>"
"""The marks around a text, by open_clip's names: written in a text it takes them for the marks."""

OLD_MARKS = {"<|startoftext|>": START_OF_TEXT, "<|endoftext|>": END_OF_TEXT}
"""OpenAI's names, which are only text to open_clip, and these."""

_CLIP_MERGES = 49152 - 256 - 2  # of the file's lines, as OpenAI's CLIP takes them
# U+0345 is dropped: ignoring case, open_clip's expression counts it neither as a letter nor not
_CLIP_WORDS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}\x{345}]+"
# The "<" of a mark that belongs to a run of punctuation before it, so that open_clip sees no mark:
# all that does not follow a letter, a digit, a space or nothing, other such marks between. Words
# end behind that "<" anyway, and a space there changes nothing but that no mark is found.
SWALLOWED = (
    r"(?<!(?:^|[\s\p{L}\p{N}\x{345}])(?:<(?:start|end)_of_text>)*)<(?=(?:start|end)_of_text>)"
)
_MARKS_STEP = {"type": "Replace", "pattern": {"Regex": SWALLOWED}, "content": "< "}


@cache
def clip_bpe_json() -> str:
    """``tokenizer.json`` of CLIP's byte-pair vocabulary, from the file that open_clip installs.

    Other libraries read it too: its normaliser composes characters, joins white space and
    lower-cases, which is what open_clip's cleaning does to ordinary text, and the marks are found
    in what comes of that, where open_clip finds them.

    Raises:
        ModelError: open_clip is not installed.
    """
    # Over 60 lines: most are the JSON that comes out.
    spec = importlib.util.find_spec("open_clip")
    if spec is None or spec.origin is None:
        raise ModelError("open_clip is not installed; run: pip install open_clip_torch")
    path = Path(spec.origin).parent / "bpe_simple_vocab_16e6.txt.gz"
    lines = gzip.decompress(path.read_bytes()).decode("utf-8").split("\n")
    merges = [line.split() for line in lines[1 : _CLIP_MERGES + 1]]
    letters = _byte_letters()
    words = [*letters, *(letter + "</w>" for letter in letters), *map("".join, merges)]
    words += [START_OF_TEXT, END_OF_TEXT]
    vocabulary = {word: index for index, word in enumerate(words)}
    marks = [
        {
            "id": vocabulary[mark],
            "content": mark,
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
            "normalized": True,  # "<END_OF_TEXT>" is one too
            "special": True,
        }
        for mark in (START_OF_TEXT, END_OF_TEXT)
    ]
    split = {
        "type": "Split",
        "pattern": {"Regex": _CLIP_WORDS},
        "behavior": "Removed",
        "invert": True,
    }
    byte_level = {
        "type": "ByteLevel",
        "add_prefix_space": False,
        "trim_offsets": True,
        "use_regex": False,
    }
    spaces = {"type": "Replace", "pattern": {"Regex": r"\s+"}, "content": " "}
    model = {
        "type": "BPE",
        "dropout": None,
        "unk_token": END_OF_TEXT,
        "continuing_subword_prefix": "",
        "end_of_word_suffix": "</w>",
        "fuse_unk": False,
        "byte_fallback": False,
        "ignore_merges": False,
        "vocab": vocabulary,
        "merges": merges,
    }
    values = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": marks,
        "normalizer": {
            "type": "Sequence",
            "normalizers": [{"type": "NFC"}, spaces, {"type": "Lowercase"}, _MARKS_STEP],
        },
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [split, byte_level]},
        "post_processor": {
            "type": "RobertaProcessing",
            "sep": [END_OF_TEXT, vocabulary[END_OF_TEXT]],
            "cls": [START_OF_TEXT, vocabulary[START_OF_TEXT]],
            "trim_offsets": False,
            "add_prefix_space": False,
        },
        "decoder": byte_level,
        "model": model,
    }
    return json.dumps(values, ensure_ascii=False)


def rename_marks(text: str) -> str:
    """A ``tokenizer.json`` of CLIP's vocabulary with the marks' names as they are here.

    Files that ptft wrote before had OpenAI's, so that other libraries took other texts for marks.
    The numbers stay, and a file without OpenAI's names stays as it is.
    """
    if not all(f'"{name}"' in text for name in OLD_MARKS):
        return text
    try:
        return _renamed(json.loads(text))
    except (AttributeError, KeyError, TypeError, IndexError, ValueError) as error:
        kind = type(error).__name__
        raise ModelError(f"tokenizer.json: no CLIP vocabulary of OpenAI's names: {kind}") from None


def _renamed(values: dict[str, Any]) -> str:
    model = values["model"]
    model["vocab"] = {OLD_MARKS.get(word, word): index for word, index in model["vocab"].items()}
    model["unk_token"] = OLD_MARKS.get(model["unk_token"], model["unk_token"])
    for token in values["added_tokens"]:
        if token["content"] in OLD_MARKS:
            token.update(content=OLD_MARKS[token["content"]], normalized=True)
    for end in ("sep", "cls"):
        name, number = values["post_processor"][end]
        values["post_processor"][end] = [OLD_MARKS.get(name, name), number]
    values["normalizer"]["normalizers"].append(_MARKS_STEP)
    return json.dumps(values, ensure_ascii=False)


def _byte_letters() -> list[str]:
    """The 256 characters that stand for bytes in a byte-level vocabulary, in CLIP's order."""
    printable = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = 256 - len(printable)
    return [chr(byte) for byte in printable] + [chr(256 + index) for index in range(others)]
