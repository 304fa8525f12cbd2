"""What a detector gets right and wrong in a split, box by box.

Kinds of mistakes are those of Bolya et al. 2020 (TIDE). Boxes overlap enough from an IoU of 0.5 on;
answers count from the score on at which the split's F1 is best.

Shape letters: T things that are there, F boxes that are found.
"""

from collections import Counter
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from ptft.data.boxes.box import Boxes
from ptft.detection import box_iou
from ptft.evaluate.detect import Detections
from ptft.onnx.boxes import FoundBoxes

__all__ = [
    "FOUND",
    "MISSED",
    "RIGHT",
    "JudgedBox",
    "best_threshold",
    "count_judged",
    "judge_picture",
]

RIGHT = "right"
FOUND = "found"
MISSED = "missed"
_IOU, _NEAR = 0.5, 0.1


@dataclass(frozen=True)
class JudgedBox:
    """A box that is found, or a thing that is there.

    Attributes:
        corners: left, top, right, bottom in pixels.
        name: of its class.
        kind: of an answer ``right``, ``another class``, ``badly placed``, ``twice`` or ``nothing
            there``; of a thing ``found`` or ``missed``.
        score: of an answer; None of a thing.
    """

    corners: tuple[float, float, float, float]
    name: str
    kind: str
    score: float | None = None


def best_threshold(detections: Detections) -> float:
    """The score from which on answers count, so that F1 is best; 1 where nothing is right."""
    scores, right, there = [], [], 0
    for found, boxes in zip(detections.found, detections.boxes, strict=True):
        kinds, _ = _judged(found, boxes, 0.0)
        scores.append(found.scores)
        right.append(np.array([kind == RIGHT for kind in kinds], bool))
        there += int((~(boxes.crowd | boxes.difficult)).sum())
    score, hit = np.concatenate(scores), np.concatenate(right)
    order = np.argsort(-score, kind="stable")
    hits = hit[order].cumsum()
    if not len(hits) or not hits[-1]:
        return 1.0
    f1 = 2 * hits / (np.arange(1, len(hits) + 1) + there)
    return float(score[order][int(f1.argmax())])


def judge_picture(detections: Detections, place: int, threshold: float) -> list[JudgedBox]:
    """Things and answers of a picture of a split, things first; regions that are neither right nor
    wrong are left out, and so are answers in them."""
    found, boxes, classes = detections.found[place], detections.boxes[place], detections.classes
    kinds, taken = _judged(found, boxes, threshold)
    judged = []
    for row in np.flatnonzero(~(boxes.crowd | boxes.difficult)).tolist():
        kind = FOUND if taken[row] else MISSED
        judged.append(JudgedBox(_four(boxes.corners[row]), classes[boxes.labels[row]], kind))
    for row, kind in enumerate(kinds):
        if kind:
            name, score = classes[found.labels[row]], float(found.scores[row])
            judged.append(JudgedBox(_four(found.corners[row]), name, kind, score))
    return judged


def count_judged(detections: Detections, threshold: float) -> dict[str, int]:
    """How many there are of each kind in a split, the most first."""
    counts = Counter(
        box.kind
        for place in range(len(detections.names))
        for box in judge_picture(detections, place, threshold)
    )
    return dict(counts.most_common())


def _judged(
    found: FoundBoxes, boxes: Boxes, threshold: float
) -> tuple[list[str], NDArray[np.bool_]]:
    """The kind of each answer ("" for one that does not count), and which things are taken."""
    region = boxes.crowd | boxes.difficult
    taken = np.zeros(len(boxes), bool)
    overlap_ft = box_iou(torch.from_numpy(found.corners), torch.from_numpy(boxes.corners)).numpy()
    kinds = []
    for row in range(len(found.scores)):  # the surest first
        if found.scores[row] < threshold:
            kinds.append("")
            continue
        near = overlap_ft[row]
        own = boxes.labels == found.labels[row]
        free = np.where(own & ~region & ~taken, near, 0.0)
        if len(free) and free.max() >= _IOU:
            taken[int(free.argmax())] = True
            kinds.append(RIGHT)
        elif (near[own & region] >= _IOU).any():
            kinds.append("")
        elif (near[own & ~region] >= _IOU).any():
            kinds.append("twice")
        elif (near[~own & ~region] >= _IOU).any():
            kinds.append("another class")
        elif (near[own & ~region] >= _NEAR).any():
            kinds.append("badly placed")
        else:
            kinds.append("nothing there")
    return kinds, taken


def _four(corners: NDArray[np.float32]) -> tuple[float, float, float, float]:
    left, top, right, bottom = (round(float(value), 1) for value in corners)
    return left, top, right, bottom
