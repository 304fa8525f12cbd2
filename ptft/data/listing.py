"""What lies in a folder of pictures: the pictures, and all that is passed over, by kind.

Hidden things and what systems leave behind are never pictures or classes: names that begin with
"." or "__" (as Hugging Face's datasets has it), and the folders of file managers and disk stations.
Links are followed, as torchvision's ImageFolder does; one that leads back into itself is left out.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from ptft.data.formats import is_picture
from ptft.errors import DataError

__all__ = ["Listing", "PassedOver", "is_hidden", "list_pictures"]

_SYSTEM = frozenset(
    name.lower()
    for name in (
        *("@eaDir", "#recycle", "#snapshot", "$RECYCLE.BIN", "System Volume Information"),
        *("lost+found", "Thumbs.db", "desktop.ini", "Icon\r"),
    )
)

Kind = str
"""Of what is passed over, in words that fit behind a number."""


@dataclass
class PassedOver:
    """Counts of what was not taken, by kind, each with its first example."""

    counts: dict[Kind, int] = field(default_factory=dict)
    first: dict[Kind, str] = field(default_factory=dict)

    def add(self, kind: Kind, name: str) -> None:
        """Count one."""
        self.counts[kind] = self.counts.get(kind, 0) + 1
        self.first.setdefault(kind, name)

    def merge(self, other: "PassedOver") -> None:
        """Add what another counted."""
        for kind, count in other.counts.items():
            self.counts[kind] = self.counts.get(kind, 0) + count
            self.first.setdefault(kind, other.first[kind])

    def lines(self) -> list[str]:
        """A line a kind, such as ``passed over: 3 hidden (first: cat/.a.png)``."""
        return [
            f"passed over: {count:,} {kind} (first: {self.first[kind]})"
            for kind, count in self.counts.items()
        ]


@dataclass
class Listing:
    """The pictures in a folder, and what was passed over.

    Attributes:
        pictures: paths inside the folder, with "/" between their parts, sorted part by part.
        folders: names of the folders at the top that are neither hidden nor the system's, sorted.
        tables: metadata tables, which nothing reads here.
        passed_over: all else, by kind.
    """

    pictures: list[str] = field(default_factory=list)
    folders: list[str] = field(default_factory=list)
    tables: list[str] = field(default_factory=list)
    passed_over: PassedOver = field(default_factory=PassedOver)


def is_hidden(name: str) -> bool:
    """Whether a file or folder of this name belongs to a system or an editor, not to the data."""
    if name in (".", ".."):
        return False
    return name.startswith((".", "__")) or name.lower() in _SYSTEM


def list_pictures(folder: Path) -> Listing:
    """List the pictures below a folder.

    Raises:
        DataError: a folder in it cannot be read.
    """
    listing = Listing()
    for inside in _walk(folder, "", (_identity(folder),), listing):
        if is_picture(inside):
            listing.pictures.append(inside)
        elif _is_table(inside):
            listing.tables.append(inside)
        else:
            ending = Path(inside).suffix.lower() or "no ending"
            listing.passed_over.add(f"files that are no pictures ({ending})", inside)
    listing.pictures.sort(key=lambda name: name.split("/"))
    listing.folders.sort()
    return listing


def _is_table(inside: str) -> bool:
    stem, _, ending = inside.rpartition("/")[2].rpartition(".")
    return stem.lower() == "metadata" and ending.lower() in ("csv", "jsonl", "parquet", "json")


def _identity(folder: Path | str) -> tuple[int, int]:
    state = Path(folder).stat()
    return state.st_dev, state.st_ino


def _walk(
    folder: Path | str, inside: str, above: tuple[tuple[int, int], ...], listing: Listing
) -> Iterator[str]:
    """Paths of the files below a folder; ``above`` are the folders on the way to it."""
    try:
        with os.scandir(folder) as found:
            entries = sorted(found, key=lambda entry: entry.name)
    except OSError as error:
        raise DataError(f"{folder}: {error.strerror or error}") from None
    for entry in entries:
        name = f"{inside}{entry.name}"
        if is_hidden(entry.name):
            listing.passed_over.add("hidden or of the system", name)
        elif entry.is_dir():
            if _identity(entry.path) in above:
                listing.passed_over.add("links that lead back into a folder above", name)
                continue
            if not inside:
                listing.folders.append(entry.name)
            yield from _walk(entry.path, f"{name}/", (*above, _identity(entry.path)), listing)
        elif entry.is_file():
            yield name
        else:
            broken = entry.is_symlink()
            listing.passed_over.add("broken links" if broken else "neither file nor folder", name)
