"""What a classifier says of every picture of a split: by class, how sure, its worst mistakes."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from ptft.evaluate.class_ranks import ClassRanks
from ptft.evaluate.figures import BINS

__all__ = ["CalibrationBin", "ClassAnswers", "ClassFigures"]


class ClassFigures(NamedTuple):
    """Figures of one class, shares of 1.

    Attributes:
        images: that show it.
        recall: of them, those that were found; 0 where there are none.
        precision: of the images that were said to show it, those that do; 0 where there are none.
        f1: the harmonic mean of both.
    """

    images: int
    recall: float
    precision: float
    f1: float


class CalibrationBin(NamedTuple):
    """Images whose confidence lies in an interval: the reliability diagram's unit.

    Attributes:
        low, high: the interval (low, high].
        images: in it.
        confidence, accuracy: their means.
    """

    low: float
    high: float
    images: int
    confidence: float
    accuracy: float


@dataclass(frozen=True)
class ClassAnswers:
    """A classifier's answers to a split.

    Attributes:
        classes: names, as ``labels_n`` and ``said_n`` number them.
        places_n: of the images in their set.
        labels_n: the right classes.
        said_n: the class of the highest score.
        sure_n: its softmax probability.
    """

    classes: list[str]
    places_n: NDArray[np.int64]
    labels_n: NDArray[np.int64]
    said_n: NDArray[np.int64]
    sure_n: NDArray[np.float64]

    @classmethod
    def of(cls, ranks: ClassRanks, places: torch.Tensor, classes: Sequence[str]) -> "ClassAnswers":
        """Of ranks, with the place of each row in its set."""
        return cls(
            list(classes),
            places.cpu().numpy(),
            ranks.labels_n.cpu().numpy(),
            ranks.said_n.cpu().numpy(),
            ranks.sure_n.cpu().numpy(),
        )

    def per_class(self) -> dict[str, ClassFigures]:
        """Figures of every class, in their order."""
        count = len(self.classes)
        right_n = self.labels_n == self.said_n
        shown_c = np.bincount(self.labels_n, minlength=count)
        said_c = np.bincount(self.said_n, minlength=count)
        right_c = np.bincount(self.labels_n[right_n], minlength=count)
        found = {}
        for place, name in enumerate(self.classes):
            shown, said, right = int(shown_c[place]), int(said_c[place]), int(right_c[place])
            recall = right / shown if shown else 0.0
            precision = right / said if said else 0.0
            f1 = 2 * right / (shown + said) if right else 0.0
            found[name] = ClassFigures(shown, recall, precision, f1)
        return found

    def calibration(self, bins: int = BINS) -> list[CalibrationBin]:
        """The bins that :func:`ptft.evaluate.figures.expected_calibration_error` weighs; those
        without an image are left out (Guo et al. 2017)."""
        bin_n = np.clip(np.ceil(self.sure_n * bins), 1, bins).astype(int) - 1
        found = []
        for number in range(bins):
            own = bin_n == number
            if own.any():
                right = float((self.labels_n[own] == self.said_n[own]).mean())
                sure = float(self.sure_n[own].mean())
                low, high = number / bins, (number + 1) / bins
                found.append(CalibrationBin(low, high, int(own.sum()), sure, right))
        return found

    def worst(self, most: int) -> list[int]:
        """Rows of the mistakes that the model was surest of, the surest first."""
        wrong = np.flatnonzero(self.labels_n != self.said_n)
        return wrong[np.argsort(-self.sure_n[wrong], kind="stable")][:most].tolist()
