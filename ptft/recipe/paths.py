"""Paths as a recipe writes them: plain, globs, brace patterns, Hub ids."""

import glob
import re
from pathlib import Path

from braceexpand import braceexpand

from ptft.errors import RecipeError

__all__ = ["expand_paths", "is_hub_id", "split_hub_id"]

_HUB_ID = re.compile(
    r"(?P<repo>[\w][\w.-]*/[\w][\w.-]*)(@(?P<revision>[\w][\w./-]*))?(:(?P<split>\w+))?"
)


def expand_paths(patterns: str | list[str], key: str) -> list[Path]:
    """The files or folders that patterns mean, in the order given, globs sorted.

    Args:
        patterns: ``a.tar``, ``train-*.tar``, ``{noto,blob}/train-{000..003}.tar``, or a list of
            these. What exists under exactly that name is meant, whatever characters it has.
        key: the recipe's key, for the message.

    Raises:
        RecipeError: a pattern matches nothing.
    """
    found: list[Path] = []
    for pattern in [patterns] if isinstance(patterns, str) else patterns:
        for path in _expand_braces(pattern, key):
            literal = Path(path).expanduser()
            matches = [literal] if literal.exists() else _sorted_glob(str(literal))
            if not path or not matches:
                raise RecipeError(f"{key}: {path!r}: no such file or folder")
            found += matches
    if not found:
        raise RecipeError(f"{key}: an empty list; allowed: at least one path")
    return found


def _expand_braces(pattern: str, key: str) -> list[str]:
    if Path(pattern).expanduser().exists():
        return [pattern]
    try:
        return list(braceexpand(pattern))
    except ValueError:
        raise RecipeError(f"{key}: {pattern!r}: unbalanced braces") from None


def _sorted_glob(pattern: str) -> list[Path]:
    return [Path(match) for match in sorted(glob.glob(pattern))]  # noqa: PTH207 - absolute ones too


def is_hub_id(text: str) -> bool:
    """Whether ``text`` has the form ``org/name``, ``org/name@revision`` (or with ``:split``) and is
    no local path."""
    return _HUB_ID.fullmatch(text) is not None and not Path(text).exists()


def split_hub_id(text: str) -> tuple[str, str | None, str | None]:
    """``org/name@revision:split`` -> (``org/name``, revision or None, split or None)."""
    match = _HUB_ID.fullmatch(text)
    if match is None:
        raise RecipeError(f"{text!r}: not of the form org/name@revision")
    return match["repo"], match["revision"], match["split"]
