"""The tokenizer's files, such that transformers alone gives the ids that the model was trained on.

open_clip cleans a text before it tokenises it. What ``tokenizer.json`` can do of that is put into
it: HTML 4's entities are resolved, typographic quotes become plain ones, and for SigLIP's
vocabularies ASCII punctuation is dropped and the text lower-cased. Bytes that were decoded wrongly
are repaired by ptft and open_clip alone.
"""

import json
import string
from html.entities import name2codepoint
from pathlib import Path
from typing import Any

from ptft.artifact import FolderFiles, write_json
from ptft.model.spec import ModelSpec
from ptft.preprocess import TextTokenizer

__all__ = ["TOKENIZER_CONFIG", "write_tokenizer_files"]

TOKENIZER_CONFIG = "tokenizer_config.json"
_PUNCTUATION = "[" + "".join(f"\\{c}" if c in r"\]^-[" else c for c in string.punctuation) + "]"


def write_tokenizer_files(spec: ModelSpec, folder: Path) -> None:
    """Write ``tokenizer.json`` and ``tokenizer_config.json``."""
    text = _cleaning(spec.tokenizer)
    (folder / FolderFiles.TOKENIZER).write_text(text, encoding="utf-8")
    if spec.tokenizer_config:
        write_json(folder / TOKENIZER_CONFIG, _config(spec))


def _cleaning(tokenizer: TextTokenizer) -> str:
    """The tokenizer's JSON with its cleaning in front of its own normaliser, once."""
    if tokenizer.clean == "none":
        return tokenizer.json
    steps = _entities()
    steps += [_replace("[\u02bc\u2018-\u201b]", "'"), _replace("[\u201c-\u201f]", '"')]  # as ftfy
    if tokenizer.clean == "canonicalize":
        steps += [_replace("_", " "), _replace(_PUNCTUATION, "")]
    if tokenizer.kind == "hf" and tokenizer.clean in ("canonicalize", "clip"):
        strip = {"type": "Strip", "strip_left": True, "strip_right": True}
        steps += [{"type": "Lowercase"}, _replace(r"\s+", " "), strip]
    values = json.loads(tokenizer.json)
    own = values.get("normalizer")
    if own is not None:
        before = own["normalizers"] if own["type"] == "Sequence" else [own]
        if before[: len(steps)] == steps:
            return tokenizer.json  # exported before
        steps += before
    values["normalizer"] = {"type": "Sequence", "normalizers": steps}
    return json.dumps(values, ensure_ascii=False)


def _entities() -> list[dict[str, Any]]:
    """What ``html.unescape`` does twice, to the names that HTML 4 has: 0.07 ms a text."""
    found = {f"&{name};": chr(point) for name, point in name2codepoint.items() if name != "amp"}
    found |= {"&apos;": "'", "&#39;": "'", "&#x27;": "'", "&#34;": '"'}
    ampersand = ("&amp;", "&")  # before the others and once more: "&amp;lt;" is "<"
    return [
        {"type": "Replace", "pattern": {"String": written}, "content": meant}
        for written, meant in (ampersand, *found.items(), ampersand)
    ]


def _replace(pattern: str, content: str) -> dict[str, Any]:
    return {"type": "Replace", "pattern": {"Regex": pattern}, "content": content}


def _config(spec: ModelSpec) -> dict[str, Any]:
    """``tokenizer_config.json`` that transformers 4.57 and 5 read alike.

    Classes for single vocabularies build the tokenizer anew in 5 and lose the cleaning; the general
    one takes ``tokenizer.json`` as it is. Where padding is part of what the text tower
    reads, no mask is handed to the model.
    """
    tokenizer = spec.tokenizer
    names = ["input_ids", "attention_mask"] if spec.text_trimmable else ["input_ids"]
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": tokenizer.context_length,
        "model_input_names": names,
        "padding_side": "left" if tokenizer.pad_left else "right",
        **{
            key: value
            for key, value in spec.tokenizer_config.items()
            if key.endswith("_token") and isinstance(value, str)
        },
    }
