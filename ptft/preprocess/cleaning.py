"""What happens to a text before it is cut into tokens, as open_clip's tokenizers do it."""

import html
import string
from collections.abc import Callable

import ftfy

__all__ = ["CLEANERS"]


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
