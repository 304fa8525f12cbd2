"""Where a head tells each class by itself: how it begins, and from which probability it tells.

Shape letters: N samples, C classes.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from ptft.data import SampleSet
from ptft.data.reading.loader import Workers
from ptft.data.sample import Subset
from ptft.errors import DataError
from ptft.evaluate.embed import embed_split
from ptft.evaluate.label_scores import f1_scores, score_labels
from ptft.model import DualEncoder
from ptft.model.head import EVEN
from ptft.recipe import ClassifyEvaluation

__all__ = ["ThresholdChoice", "best_thresholds", "choose_thresholds", "fit_bias", "prior_bias"]

_BATCH = 256  # samples at once, as an evaluation has it unless told otherwise
_MOST = 2048  # samples that a bias is fitted to: its error is then a tenth of a point or so
_HALVINGS = 60  # of an interval of 2,000 logits: 1e-15 is left
_LEAST = 1e-9  # of a threshold, which lies inside (0, 1) however sure a head is


@dataclass(frozen=True)
class ThresholdChoice:
    """What choosing did.

    Attributes:
        samples: of validation.
        classes: of the head.
        absent: of them, those that no sample has: they are told from a half on.
        before, after: F1 of all decisions on these samples, at a half and at what was chosen.
    """

    samples: int
    classes: int
    absent: int
    before: float
    after: float

    def __str__(self) -> str:
        left = f"; {self.absent} of {self.classes} classes are in none of them and keep a half"
        return (
            f"thresholds chosen on {self.samples:,} samples of val: F1 of all decisions there "
            f"{self.before:.1%} at a half, {self.after:.1%} after{left if self.absent else ''}"
        )


@torch.no_grad()
def choose_thresholds(
    model: DualEncoder, val: SampleSet, *, workers: Workers = "auto"
) -> ThresholdChoice:
    """Give a head the thresholds at which each class has its best F1 on a validation set.

    Raises:
        DataError: no sample says its classes, or none can be read.
        ModelError: the model has no such head, or an embedding is not finite.
    """
    found = embed_split(
        model, val, batch=_BATCH, workers=workers, what="val samples", reads=model.spec.reads
    )
    scores = score_labels(model, ClassifyEvaluation(), found, split="val")
    thresholds_c = best_thresholds(scores.logits_nc, scores.has_nc)
    model.spec = model.spec.with_(thresholds=tuple(thresholds_c.tolist()))
    even_c = torch.full_like(thresholds_c, EVEN)
    before, after = (
        f1_scores(scores.told_nc(one), scores.has_nc)[0] for one in (even_c, thresholds_c)
    )
    absent = int((~scores.has_nc.any(dim=0)).sum())
    return ThresholdChoice(len(scores.has_nc), len(thresholds_c), absent, before, after)


def best_thresholds(logits_nc: Tensor, has_nc: Tensor) -> Tensor:
    """The probability from which each class is told for its best F1: float64 (C,).

    It lies halfway, in logits, between the lowest score that is told and the next below, so that
    rounding moves nothing across; of several cuts of one F1 it is the highest. A class that no
    sample has keeps a half.
    """
    found = torch.full((logits_nc.shape[1],), EVEN, dtype=torch.float64)
    for number in range(logits_nc.shape[1]):
        has_n = has_nc[:, number]
        if not bool(has_n.any()):
            continue
        score_n, order = logits_nc[:, number].double().sort(descending=True, stable=True)
        below_n = torch.cat([score_n[1:], score_n[-1:] - 1.0])
        hits_n = has_n[order].double().cumsum(0)
        f1_n = 2 * hits_n / (torch.arange(1, len(hits_n) + 1) + hits_n[-1])
        f1_n[score_n == below_n] = -1.0  # no cut between equals
        best = int(f1_n.argmax())
        found[number] = ((score_n[best] + below_n[best]) / 2).sigmoid()
    return found.clamp(_LEAST, 1 - _LEAST)


@torch.no_grad()
def fit_bias(model: DualEncoder, samples: SampleSet, *, workers: Workers = "auto") -> str:
    """Set a new head's biases, in place, so that each class is as likely on average over training
    samples as it occurs among them.

    Similarities of pictures and prompts are all above 0 and far from being logits of a sigmoid: it
    would begin by telling every class of every picture.

    Returns:
        What that did, for people.

    Raises:
        DataError: no sample says its classes, or none can be read.
    """
    assert model.head is not None, "it was just put on"
    part = Subset(samples, _MOST, 0) if len(samples) > _MOST else samples
    found = embed_split(
        model, part, batch=_BATCH, workers=workers, what="train samples", reads=model.spec.reads
    )
    scores = score_labels(model, ClassifyEvaluation(), found, split="train")
    count = len(scores.has_nc)
    if not count:
        raise DataError("objective: no sample of train says its classes; see data.label")
    wanted_c = (scores.has_nc.sum(dim=0).double() + 0.5) / (count + 1.0)  # never 0 nor 1
    bias_c = prior_bias(scores.logits_nc, wanted_c)
    model.head.bias.add_(bias_c.to(model.head.bias))
    return f"the head begins with each class as likely as it is among {count:,} training samples"


def prior_bias(logits_nc: Tensor, wanted_c: Tensor) -> Tensor:
    """What to add to logits so that the mean of their sigmoids is ``wanted_c``: float64 (C,)."""
    low_c = torch.full_like(wanted_c, -1000.0)
    high_c = -low_c
    for _ in range(_HALVINGS):
        middle_c = (low_c + high_c) / 2
        above_c = (logits_nc.double() + middle_c).sigmoid().mean(dim=0) > wanted_c
        high_c = torch.where(above_c, middle_c, high_c)
        low_c = torch.where(above_c, low_c, middle_c)
    return (low_c + high_c) / 2
