"""Text of strangers (class names, captions, names of files) as a terminal or a page may show it."""

import re

__all__ = ["printable"]

_CONTROLS = r"\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff"
_TURNS = r"\u202a-\u202e\u2066-\u2069"  # what shows text in another order than it is read in
_HIDDEN = re.compile(f"[{_CONTROLS}{_TURNS}]")


def printable(text: str, *, lines: bool = False) -> str:
    r"""``text`` with what would steer a terminal or turn the reading order written out.

    Control characters (those of ANSI escapes among them), line separators, bidirectional overrides
    and isolates, and halves of surrogate pairs become ``\x1b``, ``\u202e`` and so on.

    Args:
        lines: leave line breaks and tabs as they are; else these are written out too.
    """
    return _HIDDEN.sub(lambda match: _written(match[0], lines), text)


def _written(character: str, lines: bool) -> str:
    if lines and character in "\n\t":
        return character
    if character < " ":
        return character.encode("unicode_escape").decode()
    return f"\\u{ord(character):04x}"  # as JSON has it, so that JSON stays JSON
