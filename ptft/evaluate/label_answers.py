"""What a model says of every class of every picture of a split, where one may have several."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch

from ptft.evaluate.class_answers import CalibrationBin
from ptft.evaluate.figures import BINS
from ptft.evaluate.label_scores import LabelScores, average_precisions, f1_scores

__all__ = ["LabelAnswers", "LabelClassFigures"]


class LabelClassFigures(NamedTuple):
    """Figures of one class, shares of 1.

    Attributes:
        images: that have it.
        average_precision: None where there are none.
        threshold: the probability from which it is told; None of similarities of prompts, as are
            the figures at it: ``recall``, ``precision``, ``f1``.
    """

    images: int
    average_precision: float | None
    threshold: float | None
    recall: float | None
    precision: float | None
    f1: float | None


@dataclass(frozen=True)
class LabelAnswers:
    """A model's answers to a split.

    Attributes:
        scores: of every class of every picture.
    """

    scores: LabelScores

    @property
    def classes(self) -> list[str]:
        """Names."""
        return self.scores.classes

    def per_class(self) -> dict[str, LabelClassFigures]:
        """Figures of every class, in their order."""
        scores, thresholds_c = self.scores, self.scores.thresholds_c
        has_nc = scores.has_nc
        precision_c = average_precisions(scores.logits_nc, has_nc).tolist()
        shown_c = has_nc.sum(dim=0).tolist()
        found = {}
        told_nc = None if thresholds_c is None else scores.told_nc(thresholds_c)
        for place, name in enumerate(self.classes):
            images = shown_c[place]
            own = precision_c[place] if images else None
            if told_nc is None or thresholds_c is None:
                found[name] = LabelClassFigures(images, own, None, None, None, None)
                continue
            told_n, has_n = told_nc[:, place], has_nc[:, place]
            right, told = int((told_n & has_n).sum()), int(told_n.sum())
            f1 = float(f1_scores(told_n[:, None], has_n[:, None])[0])
            at = (right / images if images else 0.0, right / told if told else 0.0, f1)
            found[name] = LabelClassFigures(images, own, float(thresholds_c[place]), *at)
        return found

    def calibration(self, bins: int = BINS) -> list[CalibrationBin]:
        """How often a class is there by its probability, over all classes of all pictures; bins
        without any are left out."""
        sure = self.scores.probabilities_nc.flatten().numpy()
        has = self.scores.has_nc.flatten().numpy()
        bin_n = np.clip(np.ceil(sure * bins), 1, bins).astype(int) - 1
        counts = np.bincount(bin_n, minlength=bins)
        means = [np.bincount(bin_n, weights=one, minlength=bins) for one in (sure, has)]
        return [
            CalibrationBin(
                number / bins,
                (number + 1) / bins,
                int(counts[number]),
                float(means[0][number] / counts[number]),
                float(means[1][number] / counts[number]),
            )
            for number in np.flatnonzero(counts).tolist()
        ]

    def wrong(self) -> torch.Tensor:
        """bool (N, C), the decisions that are wrong; none of similarities."""
        thresholds_c = self.scores.thresholds_c
        if thresholds_c is None:
            return torch.zeros_like(self.scores.has_nc)
        return self.scores.told_nc(thresholds_c) != self.scores.has_nc

    def worst(self, most: int) -> list[tuple[int, int]]:
        """Picture and class of the wrong decisions that lie farthest beyond their thresholds, in
        logits, the farthest first."""
        if self.scores.thresholds_c is None:
            return []
        far_nc = (self.scores.logits_nc.double() - torch.logit(self.scores.thresholds_c)).abs()
        far_nc = torch.where(self.wrong(), far_nc, -1.0)
        far, places = far_nc.flatten().sort(descending=True, stable=True)
        chosen = places[far >= 0][:most].tolist()
        return [divmod(place, len(self.classes)) for place in chosen]
