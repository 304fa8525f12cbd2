"""How many things a detector counts: by what, and how far from what is marked.

A user asks a blood count of a detector, not a precision. The error of a picture that shows a class
is ``|told - marked| / marked``; what is told where none is marked is a figure of its own. Regions
(crowds, what need not be found) are no things, and pictures that were not annotated for a class say
nothing of it.

Shape letters: C classes, P pictures, K boxes that are found.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ptft.data import SampleSet
from ptft.data.boxes.box import Boxes
from ptft.data.reading.loader import Workers
from ptft.errors import DataError
from ptft.evaluate.detect import Detections, detect_split, marked_counts
from ptft.model import DualEncoder
from ptft.model.head import EVEN
from ptft.onnx.boxes import FoundBoxes
from ptft.onnx.counting import MOST_COUNTED, Counting, suppress
from ptft.recipe import DetectEvaluation

__all__ = ["CountChoice", "best_counting", "choose_counting"]

_IOUS = (None, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8)
_LEAST = 1e-6  # of a threshold, which lies inside (0, 1) however sure a head is


@dataclass(frozen=True)
class CountChoice:
    """What choosing did.

    Attributes:
        pictures: of validation.
        counting: what was chosen.
        errors: by class that a picture shows: mean error of its count there.
        classes: of the detector.
    """

    pictures: int
    counting: Counting
    errors: dict[str, float]
    classes: int

    def __str__(self) -> str:
        told = ", ".join(f"{name} {error:.1%}" for name, error in list(self.errors.items())[:10])
        more = f" and {len(self.errors) - 10} more" if len(self.errors) > 10 else ""
        absent = self.classes - len(self.errors)
        left = f"; {absent} of {self.classes} classes are in none of them and count from a half on"
        nms = "no NMS" if self.counting.nms is None else f"NMS at an IoU of {self.counting.nms:g}"
        return (
            f"counting chosen on {self.pictures:,} pictures of val, {nms}: mean error of a "
            f"picture's count there {told}{more}{left if absent else ''}"
        )


def choose_counting(
    model: DualEncoder, val: SampleSet, *, workers: Workers = "auto"
) -> CountChoice:
    """Give a detector, in place, what counts best on a validation set.

    Raises:
        DataError: the set has no boxes of the detector's classes, or no picture can be read.
    """
    detector = model.detector
    assert detector is not None, "the recipe trains one"
    names = detector.spec.classes
    both = [name for name in val.box_classes or () if name in names]
    if not both:
        raise DataError("objective.count: val marks none of the classes of training")
    item = DetectEvaluation(classes=both, most=MOST_COUNTED)
    found = detect_split(model, val, item, workers=workers, what="val pictures")
    number = np.array([names.index(name) for name in found.classes])
    own = replace(
        found,
        classes=list(names),
        found=[FoundBoxes(f.corners, f.scores, number[f.labels]) for f in found.found],
        boxes=[_renamed(boxes, number) for boxes in found.boxes],
    )
    choice = best_counting(own)
    detector.spec = replace(detector.spec, counting=choice.counting)
    model.set_detector(detector)
    return choice


def _renamed(boxes: Boxes, number: NDArray[np.int64]) -> Boxes:
    asked = None if boxes.asked is None else number[boxes.asked]
    return replace(boxes, labels=number[boxes.labels], asked=asked)


def best_counting(found: Detections) -> CountChoice:
    """The NMS, and with it the thresholds, whose mean error over classes is least; of equals the
    first, and no NMS before all.

    Args:
        found: of a split, without NMS.
    """
    best: CountChoice | None = None
    marked_pc = marked_counts(found)
    for nms in _IOUS:
        answers = [suppress(one, nms) for one in found.found]
        chosen = [
            _best_threshold(answers, marked_pc[:, number], number)
            for number in range(len(found.classes))
        ]
        errors = {
            name: error
            for name, (_, error) in zip(found.classes, chosen, strict=True)
            if error is not None
        }
        counting = Counting(tuple(threshold for threshold, _ in chosen), nms)
        one = CountChoice(len(found.names), counting, errors, len(found.classes))
        if best is None or _mean(errors) < _mean(best.errors):
            best = one
    assert best is not None
    return best


def _mean(errors: dict[str, float]) -> float:
    return sum(errors.values()) / max(1, len(errors))


def _best_threshold(
    answers: Sequence[FoundBoxes], marked_p: NDArray[np.int64], number: int
) -> tuple[float, float | None]:
    """From where boxes of a class count best, and the mean error there; None: none is marked.

    Each box that comes to count, the surest first, brings its picture's count nearer to what is
    marked, or away from it, by one: the error is a running sum. The threshold lies halfway, in
    logits, between the last box that counts and the next, so that rounding moves nothing across.
    """
    shown = np.flatnonzero(marked_p > 0)
    if not len(shown):
        return EVEN, None
    scores, steps = [], []
    for place in shown.tolist():
        one = answers[place]
        own = one.scores[one.labels == number].astype(np.float64)
        marked = int(marked_p[place])
        nearer = np.arange(len(own)) < marked
        scores.append(own)
        steps.append(np.where(nearer, -1.0, 1.0) / marked)
    score_k = np.concatenate(scores)
    order = np.argsort(-score_k, kind="stable")
    score_k = np.concatenate([[1.0], score_k[order], [0.0]])
    nearer_k = np.concatenate([[0.0], np.cumsum(np.concatenate(steps)[order])])
    error_k = np.round(1.0 + nearer_k / len(shown), 12)  # what rounding adds tells none apart
    error_k[score_k[:-1] == score_k[1:]] = np.inf  # no cut between equals
    best = int(error_k.argmin())
    above, below = _logit(score_k[best]), _logit(score_k[best + 1])
    threshold = 1 / (1 + np.exp(-(above + below) / 2))
    return float(threshold), float(error_k[best])


def _logit(probability: float) -> float:
    inside = min(max(probability, _LEAST), 1 - _LEAST)
    return float(np.log(inside) - np.log1p(-inside))
