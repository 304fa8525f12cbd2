"""Texts as they are held against each other: one spelling each, whatever wrote them."""

import unicodedata

__all__ = ["clean_text"]

_MARKS = "\ufeff\u200b"  # a byte-order mark, a space of no width: white space to nobody's strip()


def clean_text(text: str) -> str:
    """NFC, without byte-order marks or white space at either end.

    Two spellings that look alike (an e with an accent, or an e and an accent) are one text then;
    macOS writes names of files the second way, nearly everything else the first.
    """
    if text.isascii():
        return text.strip()
    text = unicodedata.normalize("NFC", text)
    while (shorter := text.strip().strip(_MARKS)) != text:
        text = shorter
    return text
