"""Keys, passwords and tokens in text: where they would be published, or are read from a recipe."""

import re
from typing import Any

__all__ = ["credential_in", "find_credential", "hide_credentials"]

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
