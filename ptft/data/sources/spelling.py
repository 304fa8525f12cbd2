"""Names that a metadata table spells otherwise than they are."""

import re
from collections.abc import Callable, Iterable

from ptft.files.bounds import brief

__all__ = ["SPELT", "means_file", "spelt_otherwise"]

SPELT = "rows that spell the name of a picture otherwise than it lies there"
"""How a line begins that tells of them."""

_FILE = frozenset(
    ("filename", "file", "filepath", "path", "image", "imagepath", "imagefile", "imagename")
)


def means_file(column: str) -> bool:
    """Whether a column may be meant as that of the pictures' paths."""
    return _loose(column) in _FILE


def spelt_otherwise(
    names: Iterable[str], unnamed: Iterable[str], is_there: Callable[[str], bool]
) -> str | None:
    """Tell of rows whose picture is not there, where one of another spelling is that no row names:
    of other case, ending or spaces. None where there is none.

    Args:
        names: of all rows.
        unnamed: pictures that no row names.
        is_there: whether a row's picture is.
    """
    by_spelling = {_stem(name): name for name in unnamed}
    if not by_spelling:
        return None
    found = []
    for name in names:
        near = by_spelling.get(_stem(name))
        if near is not None and not is_there(name):
            found.append((name, near))
    if not found:
        return None
    name, near = found[0]
    return f"{SPELT}: {len(found):,} (first: {brief(name)}; there is {brief(near)})"


def _stem(name: str) -> str:
    """A path as any spelling of it has it, without its ending."""
    return _loose(re.sub(r"\.[^./]*$", "", name.strip().replace("\\", "/")))


def _loose(name: str) -> str:
    return re.sub(r"[\s_-]", "", name).casefold()
