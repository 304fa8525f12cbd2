"""How many texts a brace pattern stands for, told without making any of them."""

import re

__all__ = ["MAX_CHARACTERS", "MAX_TEXTS", "count_texts"]

MAX_TEXTS = 250_000  # that the patterns of a key may stand for; LAION-2B has 231,349 shards
MAX_CHARACTERS = 1 << 28  # of all of them together, at most
_MAX_PATTERN = 16_384  # characters
_MAX_DEPTH = 8  # of braces within braces
_MAX_BRACES = 64  # in all

_NUMBERS = re.compile(r"(-?\d{1,18})\.\.(-?\d{1,18})(?:\.\.-?(\d{1,18}))?")
_LETTERS = re.compile(r"([A-Za-z])\.\.([A-Za-z])(?:\.\.-?\d+)?")


def count_texts(pattern: str) -> int:
    """At least as many as ``braceexpand`` makes of a pattern.

    Raises:
        ValueError: a brace is not closed, the pattern is too long or too deep, or a range counts
            in steps of 0.
    """
    if len(pattern) > _MAX_PATTERN:
        raise ValueError(f"{len(pattern)} characters; allowed: at most {_MAX_PATTERN}")
    if pattern.count("{") > _MAX_BRACES:
        raise ValueError(f"{pattern.count('{')} braces; allowed: at most {_MAX_BRACES}")
    return _count(pattern, 0)


def _count(text: str, depth: int) -> int:
    """Of a text: the product over its braces."""
    if depth > _MAX_DEPTH:
        raise ValueError(f"braces nested deeper than {_MAX_DEPTH} levels")
    product = 1
    for kind, inner in _parts(text):
        if kind == "brace":
            product *= _count_brace(inner, depth + 1)
    return product


def _count_brace(inner: str, depth: int) -> int:
    if match := _NUMBERS.fullmatch(inner):
        first, last, step = int(match[1]), int(match[2]), int(match[3] or 1)
        if step == 0:
            raise ValueError("a range in steps of 0")
        return abs(last - first) // step + 1
    if match := _LETTERS.fullmatch(inner):
        return abs(ord(match[2]) - ord(match[1])) + 1
    if re.fullmatch(r"-?\d+\.\.-?\d+(\.\.-?\d+)?", inner):
        raise ValueError("a range of numbers of more than 18 digits")
    pieces = [""]
    for kind, part in _parts(inner, commas=True):
        if kind == "comma":
            pieces.append("")
        else:
            pieces[-1] += "{" + part + "}" if kind == "brace" else part
    return sum(_count(piece, depth) for piece in pieces)


def _parts(text: str, *, commas: bool = False) -> list[tuple[str, str]]:
    """Literals, the insides of outermost braces and, if asked for, the commas outside them."""
    parts: list[tuple[str, str]] = []
    start = place = depth = 0
    while place < len(text):
        character = text[place]
        if character == "\\":
            place += 2
            continue
        if character == "{":
            if depth == 0:
                parts.append(("text", text[start:place]))
                start = place + 1
            depth += 1
        elif character == "}":
            depth -= 1
            if depth < 0:
                raise ValueError("unbalanced braces")
            if depth == 0:
                parts.append(("brace", text[start:place]))
                start = place + 1
        elif character == "," and commas and depth == 0:
            parts += [("text", text[start:place]), ("comma", "")]
            start = place + 1
        place += 1
    if depth:
        raise ValueError("unbalanced braces")
    parts.append(("text", text[start:]))
    return parts
