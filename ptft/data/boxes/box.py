"""The boxes of a picture, and what is done with those that cannot be meant.

Boxes are left, top, right, bottom in pixels of the upright picture, as people see it; the left edge
of the first column is 0, the right edge of the last is the width.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

__all__ = ["BoxTally", "Boxes", "clean_boxes", "count_boxes", "once"]

_NAMED = 3  # examples of each fault that a note names
_CLASSES = 5  # that a note names


@dataclass(frozen=True)
class Boxes:
    """What is marked in one picture.

    Attributes:
        corners: float32 (T, 4), left, top, right, bottom.
        labels: int64 (T,), classes by their numbers in the set.
        crowd: bool (T,), regions of many things, in which none is told apart.
        difficult: bool (T,), things that a detector need not find, as Pascal VOC has them.
        asked: classes that the picture was annotated for, int64, ascending; None: for all.
        relative: whether corners are shares of the picture's sides instead.
        size: width and height of the picture as the annotation says, where it does.
    """

    corners: NDArray[np.float32]
    labels: NDArray[np.int64]
    crowd: NDArray[np.bool_]
    difficult: NDArray[np.bool_]
    asked: NDArray[np.int64] | None = None
    relative: bool = False
    size: tuple[int, int] | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, which: NDArray[np.bool_] | NDArray[np.int64]) -> "Boxes":
        """Some of them."""
        return replace(
            self,
            corners=self.corners[which],
            labels=self.labels[which],
            crowd=self.crowd[which],
            difficult=self.difficult[which],
        )

    def with_corners(self, corners: NDArray[np.float32]) -> "Boxes":
        """The same things elsewhere."""
        return replace(self, corners=corners.astype(np.float32))

    @classmethod
    def none(cls) -> "Boxes":
        """Of a picture that nothing is marked in."""
        return cls.of([], [])

    @classmethod
    def of(
        cls,
        corners: list[tuple[float, float, float, float]] | NDArray[np.float32],
        labels: list[int] | NDArray[np.int64],
        *,
        crowd: list[bool] | None = None,
        difficult: list[bool] | None = None,
        asked: NDArray[np.int64] | None = None,
    ) -> "Boxes":
        """From lists; what is not said of a box is not so."""
        count = len(labels)
        with np.errstate(over="ignore"):  # what 32 bits do not hold is infinite, and left out
            placed = np.asarray(corners, np.float32).reshape(count, 4)
        return cls(
            placed,
            np.asarray(labels, np.int64),
            np.array(crowd or [False] * count, bool),
            np.array(difficult or [False] * count, bool),
            asked,
        )

    @property
    def areas(self) -> NDArray[np.float32]:
        """In pixels, float32 (T,)."""
        size = self.corners[:, 2:] - self.corners[:, :2]
        return size[:, 0] * size[:, 1]


class BoxTally:
    """What was done with boxes that cannot be meant: how often, and where first."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.where: dict[str, list[str]] = {}
        self.elsewhere: set[str] = set()

    def add(self, fault: str, where: str, count: int = 1) -> None:
        """Count a fault (``"without area: left out"``) of a picture."""
        if count:
            self.counts[fault] += count
            named = self.where.setdefault(fault, [])
            if where not in named and len(named) == _NAMED:
                self.elsewhere.add(fault)
            elif where not in named:
                named.append(where)

    def notes(self) -> list[str]:
        """A line each."""
        return [
            f"{count:,} box{'' if count == 1 else 'es'} {fault} ({', '.join(self.where[fault])}"
            f"{', ...' if fault in self.elsewhere else ''})"
            for fault, count in self.counts.items()
        ]


def clean_boxes(boxes: Boxes, size: tuple[int, int] | None, where: str, tally: BoxTally) -> Boxes:
    """Boxes within their picture: those that reach beyond it are cut, those without area or wholly
    outside are left out, and both are counted.

    Args:
        size: width and height of the upright picture; None where it is not known yet, and nothing
            is cut.
        where: names the picture.
    """
    corners = boxes.corners
    finite = np.isfinite(corners).all(axis=1)
    tally.add("not finite: left out", where, int((~finite).sum()))
    sided = finite & (corners[:, 2] > corners[:, 0]) & (corners[:, 3] > corners[:, 1])
    tally.add("without area: left out", where, int((finite & ~sided).sum()))
    boxes = boxes[sided]
    if size is None:
        return boxes
    limits = np.array([*size, *size], np.float32)
    cut = np.clip(boxes.corners, 0.0, limits)
    inside = (cut[:, 2] > cut[:, 0]) & (cut[:, 3] > cut[:, 1])
    tally.add("wholly outside the picture: left out", where, int((~inside).sum()))
    slack = _SLACK if max(size) > 1 else _SLACK_OF_SHARES
    beyond = np.abs(cut - boxes.corners).max(axis=1, initial=0.0) > slack
    tally.add("reaching beyond the picture: cut", where, int((inside & beyond).sum()))
    return boxes.with_corners(cut)[inside]


def once(boxes: Boxes, where: str, tally: BoxTally) -> Boxes:
    """Boxes without those that another one is, corners, class and all: no tool means two things by
    it, and the second would never be found. They are counted."""
    if len(boxes) < 2:
        return boxes
    rows = zip(
        boxes.corners.tolist(),
        boxes.labels.tolist(),
        boxes.crowd.tolist(),
        boxes.difficult.tolist(),
        strict=True,
    )
    first = {(*corners, *more): n for n, (corners, *more) in reversed(list(enumerate(rows)))}
    if len(first) == len(boxes):
        return boxes
    tally.add("marked twice: counted once", where, len(boxes) - len(first))
    return boxes[np.sort(np.array(list(first.values()), np.int64))]


def count_boxes(marked: Sequence[Boxes], classes: Sequence[str]) -> str:
    """What is marked in a set, in one line."""
    labels = np.concatenate([boxes.labels for boxes in marked])
    counts = np.bincount(labels, minlength=len(classes))
    empty = sum(not len(boxes) for boxes in marked)
    most = np.argsort(-counts, kind="stable")[:_CLASSES]
    named = ", ".join(f"{classes[n]} {counts[n]:,}" for n in most.tolist())
    more = ", ..." if len(counts) > _CLASSES else ""
    line = f"{len(labels):,} boxes of {len(counts):,} classes ({named}{more})"
    return f"{line}; {empty:,} pictures without any" if empty else line


_SLACK = 1.0  # pixels beyond the edge that are rounding, and not worth a word
_SLACK_OF_SHARES = 0.005  # of a side, likewise, where the picture has not been read
