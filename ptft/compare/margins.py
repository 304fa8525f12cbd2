"""What answers about classes say beyond right and wrong.

Of few questions, arms that lie near each other answer as many rightly by chance. By how much they
were right or wrong tells more: a question's margin is what the right class scores above the best
other one. An arm's figure is the share of margins above none, and from few of them it is best
estimated where each is smeared out (a kernel estimate of a distribution function; Azzalini,
Biometrika 1981): a question counts by the probability that its margin would be above none, were
it moved by a normal number of deviation h.

They are moved by h = s Q^(-1/3) for Q margins of deviation s: a third of s at 32 questions, and at
4,000, where right and wrong are what counts, 6 %. The mean squared error of one model's figure is
least at 1.6 times as much where margins are normal, (4 / Q)^(1/3); but models are held against each
other, where what both err alike falls out and what draws each to the middle does not. What s is
each model's own margins tell, so that what scales its scores changes nothing: their deviation, or
what the middle half of a normal one has where that is less (Silverman 1986, section 3.4.2).
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri

from ptft.compare.boxes import BoxMeasurement
from ptft.compare.metric import Measurement
from ptft.evaluate.class_ranks import ClassRanks
from ptft.recipe import Comparison
from ptft.recipe.comparison import of_one_class

__all__ = ["answers_by_margin", "margins_told", "smoothed"]

_DIGITS = 6  # that a cell keeps
_MIDDLE_HALF = 2 * float(ndtri(0.75))  # of a normal number, in deviations
_Array = NDArray[np.float64]


def answers_by_margin(parts: Sequence[Measurement | BoxMeasurement]) -> list[list[float]]:
    """Answers of one model, between 0 and 1, whose mean is its figure: a row for each part of its
    questions; no rows where they are not of one class of several."""
    margins = [found for part in parts if (found := _margins(part)) is not None]
    if len(margins) < len(parts):
        return []
    ends = np.cumsum([len(part) for part in margins])[:-1]
    rows = np.split(smoothed(np.concatenate(margins)).round(_DIGITS), ends)
    return [row.tolist() for row in rows]


def margins_told(comparison: Comparison) -> str | None:
    """Tell in a sentence what is expected of the target; None where no margins are read."""
    return (
        "What is expected of top1 counts by how much each answer was right or wrong, which tells "
        "more of few than how many were right: val says that."
        if of_one_class(comparison)
        else None
    )


def smoothed(margins_q: _Array) -> _Array:
    """By what probability each margin would be above none, were it smeared out: (Q,)."""
    low, high = np.quantile(margins_q, [0.25, 0.75])
    deviation = min(float(margins_q.std()), float(high - low) / _MIDDLE_HALF)
    if not deviation > 0.0:  # of one question, or of a model that says the same of most
        return (margins_q > 0.0).astype(np.float64)
    found: _Array = ndtr(margins_q / deviation * len(margins_q) ** (1 / 3))
    return found


def _margins(measured: Measurement | BoxMeasurement) -> _Array | None:
    """What the right class scores above the best other one: (Q,); None where there is none."""
    if isinstance(measured, BoxMeasurement) or not isinstance(measured.ranks, ClassRanks):
        return None
    if measured.ranks.classes < 2:
        return None
    found = []
    for scores, own in measured.blocks():
        scores_bc, own_bc = scores.double().numpy(), own.numpy()
        found.append(scores_bc[own_bc] - np.where(own_bc, -np.inf, scores_bc).max(axis=1))
    return np.concatenate(found)
