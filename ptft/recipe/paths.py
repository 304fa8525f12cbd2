"""Paths as a recipe writes them: plain, globs, brace patterns, Hub ids."""

import glob
import re
from pathlib import Path

from braceexpand import UnbalancedBracesError, braceexpand

from ptft.errors import RecipeError

__all__ = ["expand_paths", "is_hub_id", "split_hub_id"]

_HUB_ID = re.compile(
    r"(?P<repo>[\w][\w.-]*/[\w][\w.-]*)(@(?P<revision>[\w][\w./-]*))?(:(?P<split>\w+))?"
)


def expand_paths(patterns: str | list[str], key: str) -> list[Path]:
    """The files or folders that patterns mean, in the order given, globs sorted.

    Args:
        patterns: ``a.tar``, ``train-*.tar``, ``{noto,blob}/train-{000..003}.tar``, or a list of these.
        key: the recipe's key, for the message.

    Raises:
        RecipeError: a pattern matches nothing.
    """
    found: list[Path] = []
    for pattern in [patterns] if isinstance(patterns, str) else patterns:
        try:
            plain = list(braceexpand(pattern))
        except UnbalancedBracesError:
            raise RecipeError(f"{key}: {pattern!r}: unbalanced braces") from None
        for path in plain:
            matches = sorted(glob.glob(str(Path(path).expanduser())))
            if not matches:
                raise RecipeError(f"{key}: {path!r}: no such file or folder")
            found += [Path(match) for match in matches]
    if not found:
        raise RecipeError(f"{key}: an empty list; allowed: at least one path")
    return found


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
