"""What lies in a folder of pictures: the pictures, and all that is passed over, by kind.

Which files are pictures is told by the endings of their names. What a file really is shows by its
bytes when it is decoded; an ending only decides whether it is looked at, so that a picture under a
usual ending is never passed over.

Hidden things and what systems leave behind are never pictures or classes: names that begin with
"." or "__" (as Hugging Face's datasets has it), and the folders of file managers and disk stations.
Links are followed, as torchvision's ImageFolder does; one that leads back into itself is left out.
"""

import os
import time
from array import array
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from io import BufferedReader
from pathlib import Path

import numpy as np

from ptft.data.kept import (
    MANY,
    PackedTexts,
    PathState,
    keep,
    kept,
    read_texts,
    settled,
    state_of,
    texts,
)
from ptft.errors import DataError, SampleError
from ptft.files.own import open_plain
from ptft.files.picture_names import PassedOver, is_hidden, is_picture
from ptft.preprocess.decoding import check_picture_size
from ptft.speech import counted

__all__ = [
    "Listing",
    "begins_like_picture",
    "list_pictures",
    "read_picture",
    "walked_anew",
]


_BEGINNINGS = (
    *(b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF8", b"BM", b"II*\0", b"MM\0*", b"\0\0\1\0"),
    *(b"\0\0\0\x0cjP  ", b"\xff\x4f\xff\x51"),  # JPEG 2000, in a box or bare
    *(b"II+\0", b"MM\0+"),  # TIFF beyond 4 GiB
)


def begins_like_picture(data: bytes) -> bool:
    """Whether bytes begin as a file of one of the formats does."""
    if data.startswith(_BEGINNINGS):
        return True
    return (
        (data[:4] == b"RIFF" and data[8:12] == b"WEBP")
        or data[4:8] == b"ftyp"
        or (data[:1] == b"P" and data[1:2] in b"123456fFy" and data[2:3].isspace())
    )


def read_picture(name: str, path: Path, max_pixels: int, inside: Path | None = None) -> bytes:
    """A picture's file, of a size that a picture has; neither a pipe, which would be waited for,
    nor a device, which has no end.

    Args:
        name: of the sample, for the message.
        inside: the folder that it may not lead out of by a link; None: wherever it leads.

    Raises:
        SampleError: it cannot be read, or is something else.
    """
    try:
        if inside is not None and not path.resolve().is_relative_to(inside.resolve()):
            raise SampleError(f"{name}: it links to a place outside {inside}", "unreadable")
        with BufferedReader(open_plain(path)) as stream:
            size = os.fstat(stream.fileno()).st_size
            check_picture_size(name, size, max_pixels)
            return stream.read(size)
    except OSError as error:
        raise SampleError(f"{name}: {error.strerror or error}", "unreadable") from None


@dataclass
class Listing:
    """The pictures in a folder, and what was passed over.

    Attributes:
        pictures: paths inside the folder, with "/" between their parts, sorted part by part.
        tops: int32, of each picture the number of its folder at the top in ``folders``, -1 where it
            lies in none.
        folders: names of the folders at the top that are neither hidden nor the system's, sorted.
        tables: metadata tables, which nothing reads here.
        passed_over: all else, by kind.
    """

    pictures: PackedTexts
    tops: np.ndarray
    folders: list[str]
    tables: list[str]
    passed_over: PassedOver


def list_pictures(folder: Path) -> Listing:
    """List the pictures below a folder; no file is looked at but by its name and kind.

    A large listing is kept, and taken again while no folder of it has changed: a file that is put
    there, taken away or renamed changes the times of its folder.

    Raises:
        DataError: a folder in it cannot be read.
    """
    place = folder.resolve()
    listing = None if _anew.get() else _recall(place)
    if listing is not None:
        return listing
    walk, looked = _Walk(), time.time()
    walk.enter(folder, "", (_identity(folder),), -1)
    walk.tables.sort(key=lambda name: name.split("/"))
    tops = np.repeat(np.array(walk.tops, np.int32), np.array(walk.counts, np.int64))
    pictures = PackedTexts(np.frombuffer(walk.text, np.uint8), np.frombuffer(walk.ends, np.int64))
    listing = Listing(pictures, tops, walk.folders, walk.tables, walk.passed_over)
    if len(tops) < MANY or walk.loose or not settled(walk.entered.values(), looked):
        return listing
    return _keep(place, listing, walk.entered)


@contextmanager
def walked_anew(yes: bool = True) -> Iterator[None]:
    """In here folders are walked whatever is kept of them, if ``yes``."""
    token = _anew.set(yes or _anew.get())
    try:
        yield
    finally:
        _anew.reset(token)


_anew: ContextVar[bool] = ContextVar("anew", default=False)


def _keep(place: Path, listing: Listing, entered: dict[str, PathState]) -> Listing:
    """Keep a listing and the states of its folders; the same one, mapped."""
    over = listing.passed_over
    about = texts(folders=listing.folders, tables=listing.tables, over=[over.counts, over.first])
    inside = PackedTexts.pack(entered)
    arrays = {
        "text": listing.pictures.text,
        "ends": listing.pictures.ends,
        "tops": listing.tops,
        "inside.text": inside.text,
        "inside.ends": inside.ends,
        "states": np.array(list(entered.values()), np.int64),
    }
    return _listing(keep(arrays | about, "listing", place))


def _recall(place: Path) -> Listing | None:
    """The listing that is kept of a folder, where all its folders are as they were."""
    found = kept("listing", place)
    if found is None:
        return None
    names = PackedTexts(found["inside.text"], found["inside.ends"])
    for inside, state in zip(names, found["states"].tolist(), strict=True):
        if state_of(f"{place}/{inside}") != tuple(state):
            return None
    return _listing(found)


def _listing(found: dict[str, np.ndarray]) -> Listing:
    pictures = PackedTexts(found["text"], found["ends"])
    folders, tables = read_texts(found, "folders"), read_texts(found, "tables")
    return Listing(pictures, found["tops"], folders, tables, PassedOver(*read_texts(found, "over")))


def _is_table(inside: str) -> bool:
    stem, _, ending = inside.rpartition("/")[2].rpartition(".")
    return stem.lower() == "metadata" and ending.lower() in ("csv", "jsonl", "parquet", "json")


def _identity(folder: Path | str) -> tuple[int, int]:
    state = Path(folder).stat()
    return state.st_dev, state.st_ino


@dataclass
class _Walk:
    """What was found so far.

    Attributes:
        text, ends: of the pictures' names, see ``PackedTexts``.
        tops, counts: runs of pictures that lie in one folder at the top.
        entered: of each folder by its path inside the first one its state before it was listed.
        loose: something was found that may change though its folder does not.
    """

    text: bytearray = field(default_factory=bytearray)
    ends: "array[int]" = field(default_factory=lambda: array("q"))
    tops: list[int] = field(default_factory=list)
    counts: list[int] = field(default_factory=list)
    folders: list[str] = field(default_factory=list)
    tables: list[str] = field(default_factory=list)
    passed_over: PassedOver = field(default_factory=PassedOver)
    entered: dict[str, PathState] = field(default_factory=dict)
    loose: bool = False

    def enter(
        self, folder: Path | str, inside: str, above: tuple[tuple[int, int], ...], top: int
    ) -> None:
        """Walk a folder, in the order of names.

        Args:
            inside: its path inside the first one, with a "/" behind it, or "".
            above: the folders on the way to it, itself the last.
            top: the number of the folder at the top that it lies in.
        """
        state = state_of(folder)
        self.loose |= state is None
        self.entered[inside] = state or ()
        try:
            with os.scandir(folder) as found:
                entries = sorted(found, key=lambda entry: entry.name)
        except OSError as error:
            raise DataError(f"{folder}: {error.strerror or error}") from None
        pictures: list[str] = []
        top_level = len(above) == 1
        for entry in counted(entries, "listing folders", len(entries)) if top_level else entries:
            name = entry.name
            if is_hidden(name):
                self.passed_over.add("hidden or of the system", f"{inside}{name}")
            elif entry.is_dir():
                self._take(inside, pictures, top)
                pictures = []
                self._enter_below(entry.path, f"{inside}{name}", above, top)
            elif not entry.is_file():
                self.loose = True  # what it leads to may come
                broken = entry.is_symlink()
                kind = "broken links" if broken else "neither file nor folder"
                self.passed_over.add(kind, f"{inside}{name}")
            elif is_picture(name):
                pictures.append(name)
            elif _is_table(name):
                self.tables.append(f"{inside}{name}")
            else:
                ending = Path(name).suffix.lower() or "no ending"
                self.passed_over.add(f"files that are no pictures ({ending})", f"{inside}{name}")
        self._take(inside, pictures, top)

    def _enter_below(
        self, path: str, inside: str, above: tuple[tuple[int, int], ...], top: int
    ) -> None:
        identity = _identity(path)
        if identity in above:
            self.passed_over.add("links that lead back into a folder above", inside)
            return
        if "/" not in inside:
            top = len(self.folders)
            self.folders.append(inside)
        self.enter(path, f"{inside}/", (*above, identity), top)

    def _take(self, inside: str, pictures: list[str], top: int) -> None:
        """Add pictures of a folder that follow each other."""
        place, prefix = len(self.text), os.fsencode(inside)
        pieces = [prefix + os.fsencode(name) for name in pictures]
        self.text += b"".join(pieces)
        for piece in pieces:
            place += len(piece)
            self.ends.append(place)
        self.tops.append(top)
        self.counts.append(len(pieces))
