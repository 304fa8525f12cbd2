"""One spelling for a text, whatever wrote it, so that equal texts compare equal."""

import re
import unicodedata

from ptft.preprocess.cleaning import bound_text

__all__ = ["MAX_CAPTION", "clean_text"]

_HALF = re.compile("[\ud800-\udfff]")  # of a character, as JSON can spell one: no text holds it

MAX_CAPTION = 65_536
"""Characters of a text that count; 256 tokens of any language have a tenth of that."""

_MARKS = "\ufeff\u200b"  # a byte-order mark, a space of no width: white space to nobody's strip()


def clean_text(text: str) -> str:
    """Normalise a text: NFC, without byte-order marks or white space at either end.

    Two spellings that look alike (an e with an accent, or an e and an accent) are one text then;
    macOS writes names of files the second way, nearly everything else the first. What lies beyond
    ``MAX_CAPTION`` characters is cut off; half a character (a lone surrogate) becomes U+FFFD.
    """
    text = bound_text(text, MAX_CAPTION)
    if text.isascii():
        return text.strip()
    text = unicodedata.normalize("NFC", _HALF.sub("\ufffd", text))
    first, last = 0, len(text)
    while first < last and _is_blank(text[first]):
        first += 1
    while first < last and _is_blank(text[last - 1]):
        last -= 1
    return text[first:last]


def _is_blank(character: str) -> bool:
    return character.isspace() or character in _MARKS
