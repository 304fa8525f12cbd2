"""Text as a terminal or a page may show it: of strangers (class names, captions, names of files),
and without keys, passwords and tokens where it would be published, or is read from a recipe."""

import re
from typing import Any

__all__ = ["credential_in", "find_credential", "hide_credentials", "printable"]

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


_KINDS = {
    "a private key": r"-----BEGIN [A-Z ]*PRIVATE KEY-----(?s:.*?(?:-----END [A-Z ]*-----|\Z))",
    "a name or key before an address's host": r"(?<=://)(?!git@|\*\*\*@)[^\s/?#@'\"<>]+(?=@)",
    "a key in an address's query": (
        r"(?i:(?<=[?&])(?:[\w-]*(?:token|signature|secret|password|credential)|sig|(?:api[_-]?)?key"
        r"|awsaccesskeyid)=)[^\s&#'\"<>]+"
    ),
    "a token of the Hub": r"\bhf_[A-Za-z0-9]{30,}",
    "a key of AWS": r"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b",
    "a token of GitHub": r"\b(?:gh[pousr]_[A-Za-z0-9]{30,}|github_pat_\w{30,})",
}
_FOUND = {kind: re.compile(pattern) for kind, pattern in _KINDS.items()}


def find_credential(text: str) -> str | None:
    """What ``text`` holds that nobody else should read, in words; None: nothing that is known."""
    return next((kind for kind, pattern in _FOUND.items() if pattern.search(text)), None)


def hide_credentials(text: str) -> str:
    """``text`` with ``***`` in place of each."""
    for pattern in _FOUND.values():
        text = pattern.sub("***", text)
    return text


def credential_in(values: Any, key: str = "") -> str | None:
    """The dotted key in plain nested values that holds one, and its kind, in words; None: none."""
    items: list[tuple[object, Any]] = []
    if isinstance(values, str):
        found = find_credential(values)
        return None if found is None else f"{key}: holds {found}"
    if isinstance(values, dict):
        items = list(values.items())
    elif isinstance(values, list | tuple):
        items = list(enumerate(values))
    told = (credential_in(one, f"{key}.{name}".removeprefix(".")) for name, one in items)
    return next((one for one in told if one is not None), None)
