"""Temperature scaling: the one number that a head's logits are divided by to mend its confidence.

Shape letters: Q queries, C candidates (classes, or the texts of a retrieval).
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ptft.data import SampleSet
from ptft.data.reading.loader import Workers
from ptft.errors import DataError
from ptft.evaluate.embed import embed_split
from ptft.evaluate.figures import calibration_errors
from ptft.evaluate.ranks import blocks_of, parts_of, scores_at_once
from ptft.model import DualEncoder

__all__ = ["Calibration", "calibrate_head", "fit_temperature", "kept_scores", "temperature_of"]

Blocks = Callable[[], Iterable[tuple[Tensor, Tensor]]]
"""Scores of blocks of queries with every candidate, and which are right: float and bool (B, C)."""

_RANGE = (-5.0, 5.0)  # of log temperature; beyond it softmax is one-hot or flat anyway
_GOLDEN = (5**0.5 - 1) / 2
_STEPS = 60  # of golden section: the last interval is 3e-12 wide
_BATCH = 256  # images at once, as an evaluation has it unless told otherwise


@dataclass(frozen=True)
class Calibration:
    """The temperature that a head's logits were divided by.

    Attributes:
        temperature: above 1 where the head was too sure of itself.
        samples: of validation.
        before, after: expected calibration error on them, as shares of 1.
    """

    temperature: float
    samples: int
    before: float
    after: float

    def __str__(self) -> str:
        return (
            f"calibrated on {self.samples:,} samples of val: temperature {self.temperature:.3g}, "
            f"calibration error {self.before:.1%} before, {self.after:.1%} after"
        )


@torch.no_grad()
def calibrate_head(model: DualEncoder, val: SampleSet, *, workers: Workers = "auto") -> Calibration:
    """Divide a head's logits, in place, by the temperature that fits a validation set.

    Raises:
        DataError: no sample has a label, or none can be read.
        ModelError: the model has no head, or an embedding is not finite.
    """
    found = embed_split(
        model, val, batch=_BATCH, workers=workers, what="val samples", reads=model.spec.reads
    )
    labelled = found.labelled()
    if labelled is None or len(labelled[1]) == 0:
        raise DataError("objective.calibrate: no sample of val has a label; see data.label")
    inputs_nw, labels_n = labelled
    classes = len(model.spec.classes)

    def blocks() -> Iterable[tuple[Tensor, Tensor]]:
        for rows in blocks_of(len(labels_n), classes):
            logits_bc = model.class_logits(inputs_nw[rows].to(model.device)).float().cpu()
            yield logits_bc, F.one_hot(labels_n[rows], classes).bool()

    scores = kept_scores(blocks, len(labels_n) * classes)
    temperature = temperature_of(scores)
    before, after = calibration_errors(scores(), (1.0, temperature))
    assert model.head is not None
    model.head.divide(temperature)
    return Calibration(temperature, len(labels_n), before, after)


def kept_scores(blocks: Blocks, count: int) -> Blocks:
    """The same blocks, in memory where there is room for ``count`` scores."""
    if count > scores_at_once():
        return blocks
    found = list(blocks())
    return lambda: found


def fit_temperature(logits_qc: Tensor, own_qc: Tensor) -> float:
    """Find the temperature at which the right candidates are likeliest; logits are divided by it.

    Minimises the mean of -log of the right candidates' share by golden section over the logarithm
    (with one right candidate a query, the function is convex in 1/temperature). A temperature
    changes no prediction, since it changes no order.
    """
    return temperature_of(
        lambda: ((logits_qc[rows], own_qc[rows]) for rows in blocks_of(*logits_qc.shape))
    )


def temperature_of(blocks: Blocks) -> float:
    """:func:`fit_temperature` of scores that come by blocks, which it goes through 62 times."""

    def loss(log_t: float) -> float:
        scale = torch.exp(torch.tensor(-log_t, dtype=torch.float64))
        losses = []
        for logits_bc, own_bc in blocks():
            for part in parts_of(logits_bc):
                scaled = logits_bc[part].double() * scale
                own = scaled.masked_fill(~own_bc[part], -torch.inf)
                losses.append(scaled.logsumexp(1) - own.logsumexp(1))
        return float(torch.cat(losses).mean())

    low, high = _RANGE
    left, right = high - _GOLDEN * (high - low), low + _GOLDEN * (high - low)
    at_left, at_right = loss(left), loss(right)
    for _ in range(_STEPS):
        if at_left <= at_right:
            high, right, at_right = right, left, at_left
            left = high - _GOLDEN * (high - low)
            at_left = loss(left)
        else:
            low, left, at_left = left, right, at_right
            right = low + _GOLDEN * (high - low)
            at_right = loss(right)
    return float(torch.exp(torch.tensor((low + high) / 2, dtype=torch.float64)))
