"""Average precision of a split, and what each of its pictures says of it.

A precision is no mean over pictures, so that its error, and that of a difference of two models,
has no formula. The jackknife (Efron & Tibshirani 1993, chapter 11) makes it one: a picture's value
is by how much the split's figure is lower without it. The mean of these values is the figure, their
spread is its error, and the paired intervals of means are those of the precision.

Answers meet things as in COCO's evaluation (Lin et al. 2014).

Shape letters: P pictures, R rows (the whole split, then the split without each picture), A answers
to one class, T things of a picture, F boxes found in it.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from ptft.data.boxes.box import Boxes
from ptft.detection import box_area, box_iou
from ptft.errors import DataError
from ptft.evaluate.detect import Detections
from ptft.onnx.boxes import FoundBoxes

__all__ = ["PRECISIONS_AT", "PicturePrecision", "picture_precision"]

PRECISIONS_AT: dict[str, tuple[float, ...]] = {
    "map": tuple((np.arange(50, 100, 5) / 100).tolist()),
    "ap50": (0.5,),
    "ap75": (0.75,),
}
"""The overlaps from which on an answer is right, over which each figure is the mean."""

_MOST = 100  # answers of a picture to one class, the surest first
_RECALLS = np.linspace(0.0, 1.0, 101)
_TINY = np.spacing(1)

_Floats = NDArray[np.float64]


@dataclass(frozen=True)
class PicturePrecision:
    """A figure of a split.

    Attributes:
        value: the figure, a share of 1.
        pictures: of each picture its jackknife value, (P,); their mean is ``value``.
    """

    value: float
    pictures: _Floats


@dataclass(frozen=True)
class _Answers:
    """Answers of all pictures to one class at one overlap, the surest first.

    Attributes:
        right: bool (A,).
        pictures: the picture of each.
        things: how many things each picture has, (P,).
    """

    right: NDArray[np.bool_]
    pictures: NDArray[np.int64]
    things: NDArray[np.int64]


def picture_precision(detections: Detections, metric: str) -> PicturePrecision:
    """Compute ``map``, ``ap50`` or ``ap75`` and each picture's value.

    A class that one picture alone shows counts as it does in the whole split where that picture is
    left out.

    Raises:
        DataError: no box of these classes is there to be found.
    """
    pictures = len(detections.names)
    rows: list[_Floats] = []
    for label in range(len(detections.classes)):
        things = np.array([_things(boxes, label) for boxes in detections.boxes])
        if not things.any():
            continue
        for overlap in PRECISIONS_AT[metric]:
            rows.append(_precisions(_answers(detections, label, overlap, things)))
    if not rows:
        raise DataError("evaluate: detect: no box of the classes asked for is in this split")
    whole, *without = np.mean(rows, axis=0).tolist()
    if pictures == 1:
        return PicturePrecision(whole, np.array([whole]))
    left_p = np.array(without)
    return PicturePrecision(whole, whole + (pictures - 1) * (left_p.mean() - left_p))


def _things(boxes: Boxes, label: int) -> int:
    return int(((boxes.labels == label) & ~(boxes.crowd | boxes.difficult)).sum())


def _answers(
    detections: Detections, label: int, overlap: float, things: NDArray[np.int64]
) -> _Answers:
    scores, right, pictures = [np.zeros(0)], [np.zeros(0, bool)], [np.zeros(0, np.int64)]
    for place, (found, boxes) in enumerate(zip(detections.found, detections.boxes, strict=True)):
        if boxes.asked is not None and label not in boxes.asked:
            continue  # nobody can say whether an answer is right
        own_found = np.flatnonzero(found.labels == label)[:_MOST]
        counts, hits = _matched(found, own_found, boxes[boxes.labels == label], overlap)
        scores.append(found.scores[own_found[counts]].astype(np.float64))
        right.append(hits[counts])
        pictures.append(np.full(int(counts.sum()), place))
    order = np.argsort(-np.concatenate(scores), kind="stable")
    return _Answers(np.concatenate(right)[order], np.concatenate(pictures)[order], things)


def _matched(
    found: FoundBoxes, own: NDArray[np.int64], boxes: Boxes, overlap: float
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Which answers count, and which are right, each (F,): the surest takes the thing that it
    overlaps most; one that overlaps no free thing may lie in a region, and does not count then."""
    region = boxes.crowd | boxes.difficult
    counts, right = np.ones(len(own), bool), np.zeros(len(own), bool)
    if not len(own) or not len(boxes):
        return counts, right
    corners = torch.from_numpy(found.corners[own]).double()
    there = torch.from_numpy(boxes.corners).double()
    iou_ft = box_iou(corners, there).numpy()
    inside_ft = iou_ft * _shared_by_own(corners, there, iou_ft)
    free = ~region
    for row in range(len(own)):
        near = np.where(free, iou_ft[row], -1.0)
        if near.max() >= overlap:
            free[len(near) - 1 - int(near[::-1].argmax())] = False  # of equals the last, as COCO
            right[row] = True
        elif (inside_ft[row] >= overlap)[region].any():
            counts[row] = False
    return counts, right


def _shared_by_own(corners: torch.Tensor, there: torch.Tensor, iou_ft: _Floats) -> _Floats:
    """What makes of an overlap by the union one by the answer's own area, as regions have it."""
    own, other = box_area(corners).numpy()[:, None], box_area(there).numpy()[None]
    union: _Floats = (own + other) / (1 + iou_ft)
    return union / np.maximum(own, _TINY)


def _precisions(answers: _Answers) -> _Floats:
    """Average precision of the whole split and of it without each picture: (R,)."""
    whole = _precision(answers.right, int(answers.things.sum()))
    found = np.full(1 + len(answers.things), whole)
    alone = answers.things.sum() == answers.things  # the class is in no other picture
    touched = np.zeros(len(answers.things), bool)
    touched[answers.pictures] = True
    for place in np.flatnonzero((touched | (answers.things > 0)) & ~alone).tolist():
        left = answers.pictures != place
        things = int(answers.things.sum() - answers.things[place])
        found[1 + place] = _precision(answers.right[left], things)
    return found


def _precision(right: NDArray[np.bool_], things: int) -> float:
    """Mean of the precision at 101 recalls, each the best at this recall or a higher one."""
    hits = np.cumsum(right)
    precision = hits / (np.arange(1, len(right) + 1) + _TINY)
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    places = np.searchsorted(hits / things, _RECALLS, side="left")
    reached = places[places < len(right)]
    return float(envelope[reached].sum() / len(_RECALLS))
