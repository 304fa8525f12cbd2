"""Which files are pictures by their names, and counts of what is passed over beside them.

Hidden things and what systems leave behind are never pictures or classes: names that begin with
"." or "__" (as Hugging Face's datasets has it), and the folders of file managers and disk stations.
"""

from dataclasses import dataclass, field

__all__ = ["IMAGE_EXTENSIONS", "PassedOver", "is_hidden", "is_picture"]

IMAGE_EXTENSIONS = (
    *("jpg", "jpeg", "png", "webp", "bmp"),
    *("jpe", "jfif", "mpo", "apng", "gif", "dib", "tif", "tiff"),
    *("ppm", "pgm", "pbm", "pnm", "pfm", "avif", "avifs"),
    *("jp2", "j2k", "jpc", "jpf", "jpx", "j2c", "ico"),
)
"""Endings, lower case and without the dot, of all formats that ``decode_image`` reads; where a
sample of a tar has several pictures, the first of these is its picture."""

_ENDINGS = frozenset(IMAGE_EXTENSIONS)

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


def is_hidden(name: str) -> bool:
    """Whether a file or folder of this name belongs to a system or an editor, not to the data."""
    if name in (".", ".."):
        return False
    return name.startswith((".", "__")) or name.lower() in _SYSTEM


def is_picture(name: str) -> bool:
    """Whether the name of a file ends as a picture's does, in any case."""
    stem, dot, ending = name.rpartition(".")
    return bool(stem and dot) and ending.lower() in _ENDINGS
