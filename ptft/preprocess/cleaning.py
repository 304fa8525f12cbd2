"""What happens to a text before it is cut into tokens, as open_clip's tokenizers do it."""

import html
import string
import unicodedata
from collections.abc import Callable

import ftfy

__all__ = ["CLEANERS", "bound_text"]

_SHORT = 4096  # characters that take milliseconds, whatever they are
_MARKS = 64  # combining marks in a row; no language has ten


def bound_text(text: str, most: int) -> str:
    """A text of at most ``most`` characters, whose cleaning takes time by its length.

    Composing characters takes time by the square of a run of combining marks, so a longer text
    loses those beyond 64 in a row.
    """
    if len(text) <= _SHORT:
        return text
    text = text[:most]
    if text.isascii():
        return text
    kept, run = [], 0
    for character in text:
        run = run + 1 if unicodedata.combining(character) else 0
        if run <= _MARKS:
            kept.append(character)
    return "".join(kept)


def _basic(text: str) -> str:
    # Printable ASCII without an ampersand has nothing to repair or to resolve, and the check is
    # hundreds of times cheaper than looking.
    if text.isascii() and text.isprintable() and "&" not in text:
        return text.strip()
    return html.unescape(html.unescape(ftfy.fix_text(text))).strip()


def _whitespace(text: str) -> str:
    return " ".join(_basic(text).split())


def _clip(text: str) -> str:
    return _whitespace(text).lower()


_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)


def _canonicalize(text: str) -> str:
    """After big_vision's canonicalize_text, as SigLIP was trained."""
    text = _basic(text).replace("_", " ").translate(_NO_PUNCTUATION).lower()
    return " ".join(text.split())


def _none(text: str) -> str:
    return text


CLEANERS: dict[str, Callable[[str], str]] = {
    "clip": _clip,
    "canonicalize": _canonicalize,
    "whitespace": _whitespace,
    "none": _none,
}
"""By name, see :class:`ptft.preprocess.TextTokenizer`."""
