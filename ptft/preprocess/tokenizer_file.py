"""Whether a ``tokenizer.json`` of somebody else's may be handed to the ``tokenizers`` library.

The library does what the file says: it puts a gigabyte where a letter was, searches by an
expression that never ends, and ends the process where memory does. Known are the parts that it has,
and how much longer each can make a text; nothing else is let through.
"""

import base64
import binascii
import json
from collections.abc import Iterator
from typing import Any

from ptft.errors import ModelError, PtftError
from ptft.files.bounds import MAX_JSON, Bounds, parse_json
from ptft.preprocess.clip_vocabulary import SWALLOWED
from ptft.preprocess.expressions import endless, is_square, shortest

__all__ = ["MAX_GROWTH", "check_tokenizer"]

MAX_GROWTH = 256
"""Bytes that a normaliser may make of one byte of text, all its steps together."""

_MAX_ADDED = 64  # tokens that a post-processor puts around a text
_MAX_STEPS = 2000  # of a normaliser; HTML's entities, which the cleaning resolves, are 250
_MAX_PATTERN = 8192  # characters of an expression
_MAX_SQUARES = 32  # expressions whose search may take the square of a text's length
_MAX_SQUARE_GROWTH = 20  # of the text that these search, in bytes for a byte
_MAX_WORD = 512  # characters of a word that WordPiece looks into, in the cube of them; BERT: 100
_MAX_ADDED_TEXT = 1 << 20  # characters of all added tokens; the library takes 70 bytes for each
_MAX_PIECE = 512  # bytes of a piece of Unigram's, which finds each in the square of them
_MAX_PIECES = 16 << 20  # bytes of all of them, 340 each in its tree; a million words have 10 MB
_MAX_AFFIX = 64  # characters that stand for a word's end or going on
_MAX_PRECOMPILED = 8 << 20  # bytes of a table of SentencePiece's

# The longest that Unicode's tables make of a character, in bytes for a byte
_GROWTH = {
    "NFC": 3.0, "NFD": 4.0, "NFKC": 11.0, "NFKD": 11.0, "Lowercase": 1.5, "Strip": 1.0,
    "StripAccents": 4.0, "BertNormalizer": 4.5, "Nmt": 1.0, "ByteLevel": 2.0, "Prepend": 1.0,
}  # fmt: skip
_NORMALIZERS = {*_GROWTH, "Sequence", "Replace", "Precompiled"}
_PRE_TOKENIZERS = {
    *("BertPreTokenizer", "ByteLevel", "CharDelimiterSplit", "Digits", "FixedLength", "Metaspace"),
    *("Punctuation", "Sequence", "Split", "UnicodeScripts", "Whitespace", "WhitespaceSplit"),
}
_POST_PROCESSORS = {
    *("BertProcessing", "ByteLevel", "RobertaProcessing", "Sequence", "TemplateProcessing"),
}
_DECODERS = {
    *("BPEDecoder", "ByteFallback", "ByteLevel", "CTC", "Fuse", "Metaspace", "Replace", "Sequence"),
    *("Strip", "WordPiece"),
}
_MODELS = {"BPE", "Unigram", "WordLevel", "WordPiece"}
_KEYS = {
    *("version", "truncation", "padding", "added_tokens", "normalizer", "pre_tokenizer"),
    *("post_processor", "decoder", "model"),
}


def check_tokenizer(text: str, where: str, error: type[PtftError] = ModelError) -> dict[str, Any]:
    """Hold the text of a ``tokenizer.json`` to the parts and the growth that are allowed.

    Returns:
        Its values.

    Raises:
        error: naming the part, and what is allowed.
    """
    if len(text) > MAX_JSON:
        raise error(f"{where}: {len(text)} characters; allowed: at most {MAX_JSON}")
    top = Bounds(parse_json(text, where, error=error), where, error)
    top.keys(sorted(_KEYS), ("model",))
    _check_model(Bounds(top.values["model"], f"{where}: model", error))
    growth = _growth(top.values.get("normalizer"), f"{where}: normalizer", error)
    if growth > MAX_GROWTH:
        raise error(
            f"{where}: normalizer: makes up to {growth:.3g} bytes of one; allowed: {MAX_GROWTH}"
        )
    squares = len(_squares(top, "normalizer", _NORMALIZERS, error))
    squares += (cutting := len(_squares(top, "pre_tokenizer", _PRE_TOKENIZERS, error)))
    if squares > _MAX_SQUARES or (cutting and growth > _MAX_SQUARE_GROWTH):
        raise error(
            f"{where}: {squares} expressions with a repeat that is taken back, on texts that grow "
            f"{growth:.3g} times; allowed: {_MAX_SQUARES}, on texts that grow {_MAX_SQUARE_GROWTH}"
        )
    for key, kinds in (
        ("pre_tokenizer", _PRE_TOKENIZERS),
        ("post_processor", _POST_PROCESSORS),
        ("decoder", _DECODERS),
    ):
        for part in _parts(top.values.get(key), f"{where}: {key}", kinds, error):
            _check_part(part)
    added = top.values.get("added_tokens")
    if added is not None and not isinstance(added, list):
        top.refuse("added_tokens", added, "a list")
    for index, token in enumerate(added or ()):
        one = Bounds(token, f"{where}: added_tokens[{index}]", error)
        one.keys(
            ("id", "content", "single_word", "lstrip", "rstrip", "normalized", "special"),
            ("id", "content"),
        )
        one.whole("id", 0, 2**31 - 1)
        one.text("content", _MAX_PATTERN)
    length = sum(len(token["content"]) for token in added or ())
    if length > _MAX_ADDED_TEXT:
        top.refuse("added_tokens", length, f"{_MAX_ADDED_TEXT} characters of all of them")
    return top.values


def _check_model(model: Bounds) -> None:
    kind = model.values.get("type")  # absent in old files: the library finds it by the keys
    if kind is not None and (not isinstance(kind, str) or kind not in _MODELS):
        model.refuse("type", kind, ", ".join(sorted(_MODELS)))
    if model.values.get("dropout") not in (None, 0, 0.0):
        model.refuse("dropout", model.values["dropout"], "null; ids must not be drawn")
    model.whole("max_input_chars_per_word", 0, _MAX_WORD)
    for key in ("continuing_subword_prefix", "end_of_word_suffix"):
        model.text(key, _MAX_AFFIX, none=True)
    vocabulary = model.values.get("vocab")
    if isinstance(vocabulary, list):
        _check_pieces(model, vocabulary)
    if not isinstance(vocabulary, dict) or not vocabulary:
        return
    numbers = vocabulary.values()  # of 50,000 words or a million: no loop where all is well
    if set(map(type, numbers)) != {int} or min(numbers) < 0 or max(numbers) >= 2**31:
        for word, number in vocabulary.items():
            if isinstance(number, bool) or not isinstance(number, int) or not 0 <= number < 2**31:
                model.refuse(f"vocab[{word[:20]!r}]", number, "a whole number from 0 to 2147483647")


def _check_pieces(model: Bounds, vocabulary: list[Any]) -> None:
    """Unigram's vocabulary: pieces with their scores."""
    pieces = [one[0] for one in vocabulary if isinstance(one, list) and one]
    if len(pieces) != len(vocabulary) or not set(map(type, pieces)) <= {str}:
        model.refuse("vocab", vocabulary, "a list of pieces, each with its score")
    lengths = [len(piece.encode("utf-8", "replace")) for piece in pieces]
    if max(lengths, default=0) > _MAX_PIECE or sum(lengths) > _MAX_PIECES:
        model.refuse(
            "vocab",
            sum(lengths),
            f"{_MAX_PIECES} bytes of pieces, each of at most {_MAX_PIECE}",
        )


def _growth(value: Any, where: str, error: type[PtftError]) -> float:
    """The most bytes that a normaliser makes of one.

    What looks for a literal text finds it at most once in what a step before it has made, unless
    it lies inside that: the gains of such steps are added, and those of all others multiplied.
    """
    total, run = 1.0, 1.0
    made: set[str] = set()
    for part in _parts(value, where, _NORMALIZERS, error):
        factor, written, content = _step_growth(part)
        if written is None or any(written in one for one in made):
            total, run, made = total * run, 1.0, set()
        if written is None:  # any text may match
            total *= max(factor, 1.0)
        else:
            run += max(0, len(content.encode()) - len(written.encode()))
            made.add(content)
        if total * run > 1e30:
            break
    return total * run


def _step_growth(part: Bounds) -> tuple[float, str | None, str]:
    """Growth of one step, the literal text that it looks for (None: no literal one), and what it
    puts there."""
    kind = part.values["type"]
    if kind == "Prepend":
        part.text("prepend", 64)
        return 1.0, None, ""
    if kind == "Precompiled":
        return _precompiled_growth(part), None, ""
    if kind != "Replace":
        return _GROWTH[kind], None, ""
    part.text("content", _MAX_PATTERN)
    content = part.values.get("content", "")
    length = len(content.encode())
    pattern = _check_pattern(part)
    if "String" in pattern:
        written = pattern["String"]
        if not written:
            part.refuse("pattern", pattern, "a text that is not empty")
        return length / len(written.encode()), written, content
    least = shortest(pattern["Regex"])
    # one that may match nothing matches between all bytes
    return (length / least if least else 1.0 + length), None, content


def _precompiled_growth(part: Bounds) -> float:
    """Of SentencePiece's table: the longest of the texts that it puts in place of others."""
    try:
        table = base64.b64decode(str(part.values.get("precompiled_charsmap")), validate=True)
    except (binascii.Error, ValueError):
        part.refuse("precompiled_charsmap", part.values.get("precompiled_charsmap"), "base64")
    if len(table) > _MAX_PRECOMPILED:
        part.refuse("precompiled_charsmap", len(table), f"at most {_MAX_PRECOMPILED} bytes")
    size = int.from_bytes(table[:4], "little")
    if len(table) < 4 or size % 4 or size > len(table) - 4:
        part.refuse("precompiled_charsmap", size, f"a table of at most {len(table) - 4} bytes")
    return float(max((len(one) for one in table[4 + size :].split(b"\0")), default=1))


def _squares(top: Bounds, key: str, kinds: set[str], error: type[PtftError]) -> list[str]:
    """Expressions of a key's parts whose search may take the square of a text's length."""
    parts = _parts(top.values.get(key), f"{top.where}: {key}", kinds, error)
    patterns = [_check_pattern(part) for part in parts if "pattern" in part.values]
    texts = [pattern["Regex"] for pattern in patterns if "Regex" in pattern]
    return [text for text in texts if text != SWALLOWED and is_square(text)]


def _parts(value: Any, where: str, kinds: set[str], error: type[PtftError]) -> Iterator[Bounds]:
    """A part, or those of a sequence of them in any depth that JSON has."""
    waiting, count = [(value, where)], 0
    while waiting:
        one, place = waiting.pop(0)
        if one is None:
            continue
        count += 1
        if count > _MAX_STEPS:
            raise error(f"{where}: more than {_MAX_STEPS} parts; allowed: at most that")
        part = Bounds(one, place, error)
        kind = part.values.get("type")
        if not isinstance(kind, str) or kind not in kinds:
            part.refuse("type", kind, ", ".join(sorted(kinds)))
        if kind != "Sequence":
            yield part
            continue
        keys = [key for key in part.values if key != "type"]
        inner = part.values[keys[0]] if len(keys) == 1 else None
        if not isinstance(inner, list):
            part.refuse("Sequence", keys, "one list of parts")
        assert isinstance(inner, list)
        inside = [(each, f"{place}: {keys[0]}[{index}]") for index, each in enumerate(inner)]
        waiting = inside + waiting


def _check_part(part: Bounds) -> None:
    """A pre-tokeniser, post-processor or decoder."""
    if "pattern" in part.values:
        _check_pattern(part)
    if part.values["type"] == "Replace":  # of a decoder, for people
        part.text("content", 64)
    for key in ("single", "pair"):
        pieces = part.values.get(key)
        if pieces is not None and (not isinstance(pieces, list) or len(pieces) > _MAX_ADDED):
            part.refuse(key, pieces, f"a list of at most {_MAX_ADDED}")
    special = part.values.get("special_tokens")
    if isinstance(special, dict):
        total = sum(len(json.dumps(one)) for one in special.values())
        if len(special) > _MAX_ADDED or total > _MAX_PATTERN:
            part.refuse("special_tokens", special, f"at most {_MAX_ADDED} short ones")
    part.whole("length", 1, 2**31 - 1)


def _check_pattern(part: Bounds) -> dict[str, str]:
    """The ``pattern`` of a part: a literal text, or an expression that ends."""
    pattern = part.values.get("pattern")
    if (
        not isinstance(pattern, dict)
        or list(pattern) not in (["String"], ["Regex"])
        or not isinstance(text := next(iter(pattern.values())), str)
        or len(text) > _MAX_PATTERN
    ):
        part.refuse("pattern", pattern, f"String or Regex of at most {_MAX_PATTERN} characters")
        raise AssertionError
    if "Regex" in pattern and text != SWALLOWED and (why := endless(text)):
        part.refuse("pattern", text, f"an expression without {why}")
    return {str(key): str(value) for key, value in pattern.items()}
