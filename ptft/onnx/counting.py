"""How many things a detector finds in a picture; numpy alone.

A box counts from its class's own score on, and once: of boxes of a class that overlap by more than
an IoU only the surest does. Both were chosen on validation, see :mod:`ptft.evaluate.counting`.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptft.onnx.boxes import FoundBoxes, keep_surer

__all__ = ["MOST_COUNTED", "Counting", "count_found", "counted_boxes", "suppress"]

MOST_COUNTED = 600
"""Boxes of a picture that are looked at, the surest first."""


@dataclass(frozen=True)
class Counting:
    """By what a detector counts.

    Attributes:
        thresholds: of each of its classes, the probability from which a box counts.
        nms: IoU above which of two boxes of a class the surer counts; None: all do.
    """

    thresholds: tuple[float, ...]
    nms: float | None

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        return {**asdict(self), "thresholds": list(self.thresholds)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Counting":
        """What :meth:`to_dict` wrote."""
        return cls(tuple(values["thresholds"]), values["nms"])


def suppress(found: FoundBoxes, nms: float | None) -> FoundBoxes:
    """Of boxes of one class that overlap by more than an IoU the surest alone."""
    if nms is None:
        return found
    return _taken(found, keep_surer(found.corners, found.labels, nms))


def counted_boxes(found: FoundBoxes, counting: Counting) -> FoundBoxes:
    """The boxes that count.

    Args:
        found: of a picture, ``MOST_COUNTED`` at most, all of them however unlikely; labels are
            numbers of the detector's own classes.
    """
    surer = suppress(found, counting.nms)
    least = np.array(counting.thresholds)[surer.labels]
    return _taken(surer, np.flatnonzero(surer.scores >= least))


def count_found(found: FoundBoxes, counting: Counting) -> NDArray[np.int64]:
    """How many things of each class there are, (C,); see :func:`counted_boxes`."""
    told = counted_boxes(found, counting).labels
    return np.bincount(told, minlength=len(counting.thresholds)).astype(np.int64)


def _taken(found: FoundBoxes, rows: NDArray[np.int64]) -> FoundBoxes:
    return FoundBoxes(found.corners[rows], found.scores[rows], found.labels[rows])
