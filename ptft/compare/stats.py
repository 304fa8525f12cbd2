"""Means, bands and paired differences, by the bootstrap; the same seed gives the same numbers."""

import math
from collections.abc import Sequence
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, StringConstraints

__all__ = [
    "COUNTS_AT_ONCE",
    "AnswerRow",
    "Bits",
    "Figure",
    "Hits",
    "band",
    "hits_of",
    "paired_interval",
]

_DRAWS = 2000
COUNTS_AT_ONCE = 1 << 20
"""How often queries occur in draws, as many as are held at once: 8 MiB."""

Hits = NDArray[np.float64]
"""(S, Q): S seeds, Q queries; 1 where the right answer was found (of a detector the value of the
picture, :mod:`ptft.evaluate.picture_precision`), NaN where it was not asked."""

Figure = Annotated[float, Field(ge=-1e30, le=1e30, allow_inf_nan=False)]
"""A number that sums and squares of are none but numbers."""
Bits = Annotated[str, StringConstraints(pattern="^[01-]*$")]
AnswerRow = Bits | list[Figure]
"""A row of them as a cell keeps it: "0", "1" and "-" (not asked), or values."""


def hits_of(rows: Sequence[AnswerRow]) -> Hits:
    """Read a row for each seed."""
    width = min(len(row) for row in rows)
    return np.array(
        [[math.nan if bit == "-" else float(bit) for bit in row[:width]] for row in rows]
    )


def band(hits_sq: Hits, *, confidence: float, seed: int = 0) -> tuple[float, float]:
    """Give the bootstrap interval of the mean; seeds and queries are drawn with replacement."""
    return _interval(hits_sq, confidence, seed, least=0.0)


def paired_interval(
    a_sq: Hits, b_sq: Hits, *, confidence: float, seed: int = 0
) -> tuple[float, float]:
    """Give the bootstrap interval of mean(a) - mean(b), the same seeds and queries drawn for both.

    What makes a query hard is common to both arms and falls out of the difference, which an
    interval of each alone would count twice (Efron & Tibshirani 1993, chapter 13).
    """
    assert a_sq.shape == b_sq.shape
    return _interval(a_sq - b_sq, confidence, seed, least=-1.0)


def _draws(values_sq: Hits, seed: int) -> Hits:
    """Draw means of bootstrap samples: how often each row and column occurs is multinomial."""
    rng = np.random.default_rng(seed)
    seeds, queries = values_sq.shape
    rows_ds = rng.multinomial(seeds, np.full(seeds, 1 / seeds), size=_DRAWS)
    share_q = np.full(queries, 1 / queries)
    step = max(1, COUNTS_AT_ONCE // queries)
    sums = []
    for rows_bs in np.split(rows_ds, range(step, _DRAWS, step)):  # the draws of one call, in turn
        columns_bq = rng.multinomial(queries, share_q, size=len(rows_bs))
        sums.append(((rows_bs @ values_sq) * columns_bq).sum(axis=1))
    means: Hits = np.concatenate(sums) / (seeds * queries)
    return means


def _interval(
    values_sq: Hits, confidence: float, seed: int, *, least: float
) -> tuple[float, float]:
    """The interval of a mean of values between ``least`` and 1.

    Where all queries have one value, every draw has it too, which proves nothing: the interval then
    ends where as many queries alike would be as rare as the confidence allows (Clopper & Pearson,
    Biometrika 1934, of none among them).
    """
    tail, per_query = (1 - confidence) / 2, values_sq.mean(axis=0)
    if np.ptp(per_query) == 0.0:
        value, reach = float(per_query[0]), 1.0 - tail ** (1 / len(per_query))
        return max(least, value - reach), min(1.0, value + reach)
    low, high = np.quantile(_draws(values_sq, seed), [tail, 1 - tail])
    return float(low), float(high)
