"""What an annotation file says of a picture, whatever its format."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ptft.data.boxes.box import Boxes, BoxTally, clean_boxes, once
from ptft.data.fields.templates import clean_text
from ptft.errors import DataError, suggest
from ptft.files.bounds import read_bytes, shown

__all__ = [
    "Annotated",
    "Entry",
    "MarkedThing",
    "as_float",
    "check_absolute",
    "check_class",
    "number_things",
    "read_words",
]

_MAX_CLASS = 4096  # characters, as of data.classes

Corners = tuple[float, float, float, float]


@dataclass(frozen=True)
class MarkedThing:
    """A box of a picture.

    Attributes:
        corners: left, top, right, bottom in pixels of the upright picture; or, where ``relative``
            of the entry says so, shares of its sides.
        name: of its class.
        crowd, difficult: see ``Boxes``.
    """

    corners: Corners
    name: str
    crowd: bool = False
    difficult: bool = False


@dataclass(frozen=True)
class Entry:
    """A picture and what is in it.

    Attributes:
        name: of the picture, for people.
        path: of its file.
        things: in the order of the file.
        size: width and height that the annotation says, if it does.
        asked: names of the classes that the picture was annotated for; None: all.
        relative: whether corners are shares of the picture's sides.
    """

    name: str
    path: Path
    things: tuple[MarkedThing, ...]
    size: tuple[int, int] | None = None
    asked: tuple[str, ...] | None = None
    relative: bool = False


@dataclass(frozen=True)
class Annotated:
    """What annotation files say.

    Attributes:
        entries: pictures, in order.
        classes: names that the files give by themselves, in their order; None: those that occur.
        tally: of boxes that were left out or read as something else.
        inside: the folder that no picture may lead out of by a link; None: wherever it leads.
    """

    entries: tuple[Entry, ...]
    classes: tuple[str, ...] | None
    tally: BoxTally
    inside: Path | None = None

    @property
    def names(self) -> list[str]:
        """Class names: those that the files give, or those that occur, sorted."""
        if self.classes is not None:
            return list(self.classes)
        return sorted({thing.name for entry in self.entries for thing in entry.things})


def number_things(entry: Entry, classes: Sequence[str], tally: BoxTally, *, where: str) -> Boxes:
    """An entry's things as boxes, their classes numbered.

    Raises:
        DataError: a class is none of ``classes``.
    """
    number = {name: place for place, name in enumerate(classes)}

    def of(name: str) -> int:
        if name not in number:
            raise DataError(f"{where}: {entry.name}: class {name!r}: {suggest(name, classes)}")
        return number[name]

    things = entry.things
    asked = None
    if entry.asked is not None:
        shown = {thing.name for thing in things}
        asked = np.array(sorted(of(name) for name in {*entry.asked, *shown}), np.int64)
    boxes = Boxes.of(
        [thing.corners for thing in things],
        [of(thing.name) for thing in things],
        crowd=[thing.crowd for thing in things],
        difficult=[thing.difficult for thing in things],
        asked=asked,
    )
    boxes = replace(boxes, relative=entry.relative, size=entry.size)
    boxes = once(boxes, entry.name, tally)
    return clean_boxes(boxes, (1, 1) if entry.relative else entry.size, entry.name, tally)


def as_float(number: float) -> float:
    """Of a number of any length; what is beyond a float is no place in a picture."""
    try:
        return float(number)
    except OverflowError:
        return math.inf


def check_class(name: object, where: str) -> str:
    """A class's name, as ``data.classes`` would have it.

    Raises:
        DataError: it is none, blank, or longer than one.
    """
    cleaned = clean_text(name) if isinstance(name, str) and len(name) <= _MAX_CLASS else ""
    if not cleaned:
        raise DataError(
            f"{where}: {shown(name)}; allowed: a name of at most {_MAX_CLASS:,} characters"
        )
    return cleaned


def read_words(path: Path, *, limit: int) -> str:
    """A text file of names or numbers, with or without a byte-order mark.

    Raises:
        DataError: it is absent, larger than ``limit`` bytes, or not UTF-8.
    """
    data = read_bytes(path, limit=limit, error=DataError)
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise DataError(
            f"{path}: line {line}: not UTF-8 ({error.reason}); allowed: a file saved as UTF-8"
        ) from None


def check_absolute(entries: Iterable[Entry], where: str, format_name: str) -> None:
    """Refuse a set whose boxes look like shares where pixels are wanted.

    Raises:
        DataError: no side of any box is beyond 1.
    """
    largest = 0.0
    some = False
    for entry in entries:
        for thing in entry.things:
            some = True
            largest = max(largest, *thing.corners)
            if largest > 1.0:
                return
    if some:
        raise DataError(
            f"{where}: no coordinate is above {largest:g}: these look like shares of the picture; "
            f"{format_name} has pixels"
        )
