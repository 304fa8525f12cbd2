"""Paths as a recipe writes them: plain, globs, brace patterns, addresses, Hub ids."""

import difflib
import glob
import itertools
import re
from pathlib import Path

from braceexpand import braceexpand

from ptft.errors import RecipeError
from ptft.recipe.braces import MAX_CHARACTERS, MAX_TEXTS, count_texts

__all__ = [
    "PROTOCOLS",
    "check_url",
    "expand_braces",
    "expand_paths",
    "is_hub_id",
    "is_url",
    "split_hub_id",
    "too_many",
]

PROTOCOLS = ("file", "gcs", "gs", "hf", "memory", "s3")
"""Of the addresses that shards may have; ``file`` is a mounted network disk, say."""

_URL = re.compile(r"(?P<protocol>[A-Za-z][A-Za-z0-9+.-]*)(::|://)")

_HUB_ID = re.compile(
    r"(?P<repo>[\w][\w.-]*/[\w][\w.-]*)(@(?P<revision>[\w][\w./-]*))?(:(?P<split>\w+))?"
)


def expand_paths(patterns: str | list[str], key: str) -> list[Path]:
    """List the files or folders that patterns mean, in the order given, globs sorted.

    Args:
        patterns: ``a.tar``, ``train-*.tar``, ``{noto,blob}/train-{000..003}.tar``, or a list of
            these. What exists under exactly that name is meant, whatever characters it has.
        key: the recipe's key, for the message.

    Raises:
        RecipeError: a pattern matches nothing, or is an address.
    """
    found: list[Path] = []
    for pattern in [patterns] if isinstance(patterns, str) else patterns:
        if is_url(pattern):
            raise RecipeError(
                f"{key}: {pattern!r}: an address; allowed: a local path (data.kind: shards alone "
                "reads from elsewhere)"
            )
        for path in expand_braces(pattern, key):
            try:
                matches = _matches(Path(path).expanduser())
                near = _near(path) if path == pattern and not matches else ""
            except (OSError, ValueError, RuntimeError) as error:
                raise _no_path(path, key, error) from None
            if not path or not matches:
                raise RecipeError(f"{key}: {path!r}: no such file or folder{near}")
            found += matches
            if len(found) > MAX_TEXTS:
                raise too_many(pattern, key)
    if not found:
        raise RecipeError(f"{key}: an empty list; allowed: at least one path")
    return found


def _near(path: str) -> str:
    """The folder that there is, and what in it has a name like the one that there is not."""
    wanted = Path(path).expanduser()
    for folder in wanted.parents:
        if folder.is_dir():
            inside = wanted.relative_to(folder).parts[0]
            if not path or set("*?[") & set(inside):
                return ""  # a pattern
            near = difflib.get_close_matches(inside, (entry.name for entry in folder.iterdir()))
            return f"; did you mean {str(folder / near[0])!r}?" if near else ""
    return ""


def is_url(text: str) -> bool:
    """Whether ``text`` is an address (``s3://bucket/shard.tar``) and no local path."""
    return _URL.match(text) is not None


def check_url(url: str, key: str) -> None:
    """Refuse the address of a shard that is not of ``PROTOCOLS``.

    Raises:
        RecipeError: naming what is allowed.
    """
    match = _URL.match(url)
    protocol = match["protocol"].lower() if match else ""
    if protocol in PROTOCOLS and match is not None and match[2] == "://" and "::" not in url:
        return
    allowed = ", ".join(f"{name}://" for name in PROTOCOLS if name != "memory")
    hint = "such addresses are not fetched; " if protocol in ("http", "https", "ftp") else ""
    raise RecipeError(f"{key}: {url!r}: {hint}allowed: {allowed} or a local path")


def expand_braces(pattern: str, key: str) -> list[str]:
    """``s-{0..2}.tar`` -> three texts; what exists under exactly that name is left alone.

    Raises:
        RecipeError: a brace is not closed, or they stand for more than ``MAX_TEXTS``.
    """
    if not is_url(pattern) and _is_there(pattern):
        return [pattern]
    try:
        count = count_texts(pattern)
        if count > MAX_TEXTS or count * len(pattern) > MAX_CHARACTERS:
            raise too_many(pattern, key)
        return list(braceexpand(pattern))
    except ValueError as error:
        what = "unbalanced braces" if "nbalanced" in str(error) else str(error)
        raise RecipeError(f"{key}: {pattern[:200]!r}: {what}") from None


def too_many(pattern: str, key: str) -> RecipeError:
    """A pattern that stands for more than ``MAX_TEXTS`` paths, said."""
    return RecipeError(
        f"{key}: {pattern[:200]!r}: more than {MAX_TEXTS:,} paths; allowed: at most that many"
    )


def _is_there(pattern: str) -> bool:
    try:
        return Path(pattern).expanduser().exists()
    except (OSError, ValueError, RuntimeError):  # longer than a name can be, as a pattern may be
        return False


def _no_path(text: str, key: str, error: Exception) -> RecipeError:
    """A NUL in it, a name that is too long, a home of nobody, a folder that may not be read."""
    what = error.strerror if isinstance(error, OSError) and error.strerror else error
    return RecipeError(f"{key}: {text[:200]!r}: {what}; allowed: a path that can be read here")


def _matches(path: Path) -> list[Path]:
    """A path that exists; else what it matches as a glob, whose leading folders mean themselves
    where they exist: brackets are usual in names of folders."""
    if path.exists():
        return [path]
    there = next((folder for folder in path.parents if folder.exists()), Path())
    rest = path.relative_to(there)
    pattern = str(Path(glob.escape(str(there))) / rest) if str(there) != "." else str(rest)
    matches = glob.iglob(pattern)  # noqa: PTH207 - absolute ones too
    return [Path(match) for match in sorted(itertools.islice(matches, MAX_TEXTS + 1))]


def is_hub_id(text: str) -> bool:
    """Whether ``text`` has the form ``org/name``, ``org/name@revision`` (or with ``:split``) and is
    no local path."""
    try:
        return _HUB_ID.fullmatch(text) is not None and not Path(text).exists()
    except OSError:  # too long for a file's name, so for a repository's
        return False


def split_hub_id(text: str) -> tuple[str, str | None, str | None]:
    """``org/name@revision:split`` -> (``org/name``, revision or None, split or None)."""
    match = _HUB_ID.fullmatch(text)
    if match is None:
        raise RecipeError(f"{text!r}: not of the form org/name@revision")
    return match["repo"], match["revision"], match["split"]
