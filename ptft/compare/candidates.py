"""What answers say of a retrieval with more candidates, or with fewer, than were asked among.

Recall at k depends on how many candidates there are. Of fewer, drawn from those that were asked
among, it is exact: the chance that of the r wrong ones above the right answer less than k are drawn
is hypergeometric, and of as many (to a tenth) it is found or not. Nothing is assumed there.

Among few all models find nearly all, and what tells them apart is how high the right answer came,
which test with its many candidates will show.

Of a query whose right answer lies below r of m wrong ones, the share of all wrong ones that lie
above it is believed to be Beta(r + 1/2, m - r + 1/2), from the prior of Jeffreys. Of M other wrong
ones as many lie above it as that and chance make, a beta-binomial number, and the query's score is
the probability that it is below k: a rank is more than found or not.

Scores rank models, and are no recall: the first of few is not the first of many as often as all
that. So their mean is read off a curve. Let what right answers have and what wrong ones have be
normal with one deviation (Green & Swets 1966), d apart. Each d gives a mean of scores with m wrong
ones, and a recall with M. The recall is the figure, and the answers lie about it as the scores lie
about their mean, by the curve's slope there.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import bdtr, betaln, ndtr

from ptft.compare.boxes import BoxMeasurement
from ptft.compare.kept import KeptSet
from ptft.compare.metric import Measurement
from ptft.compare.stats import AnswerRow, hits_of
from ptft.evaluate.ranks import RetrievalRanks

__all__ = [
    "answers_among",
    "answers_of_pictures",
    "candidates_told",
    "expected_told",
    "found_among",
    "found_in_part",
    "moved_answers",
]

_DIGITS = 6  # that a cell keeps
_AS_MANY = 1.1  # up to so many candidates of test for each that was asked among are as many
_HEIGHTS = np.arange(-6.0, 12.0, 0.1)  # of a right answer, in deviations of wrong ones
_APART = np.arange(-2.0, 8.0, 0.05)  # values of d
_Array = NDArray[np.float64]


def answers_among(measured: Measurement | BoxMeasurement, times: float) -> list[float]:
    """Answers whose mean is the recall of a retrieval with so many times the candidates; none of
    classes and of boxes, where every query has the same ones."""
    if isinstance(measured, BoxMeasurement) or not isinstance(measured.ranks, RetrievalRanks):
        return []
    ranks_q, wrong_q = (
        torch.cat([of(way) for way in measured.ways]).cpu().numpy()
        for of in (measured.ranks.of, measured.ranks.wrong)
    )
    wrong, k = round(wrong_q.mean()), measured.k
    others = round((wrong + 1) * times) - 1
    if others <= wrong * _AS_MANY:
        answers_q = found_in_part(ranks_q, wrong, min(others, wrong), k)
    else:
        answers_q = moved_answers(ranks_q, wrong, others, k)
    row: list[float] = answers_q.round(_DIGITS).tolist()
    return row


def answers_of_pictures(measured: Measurement, answers: AnswerRow) -> AnswerRow:
    """Answers of a retrieval both ways, first of its pictures and then of their captions, as many
    of the one as of the other.

    What chance drew are pictures. Where some have several captions, all answers of a picture, to
    its own question and to its captions', are taken together, and stand in the place of both; so
    weighed that their mean is that of all answers. Others stay as they are.
    """
    ranks = measured.ranks
    if not isinstance(ranks, RetrievalRanks) or len(measured.ways) < 2:
        return answers
    asks_n = (ranks.captions_n > 0).cpu().numpy()
    pictures, [row_q] = int(asks_n.sum()), hits_of([answers])
    if len(row_q) == 2 * pictures:
        return answers
    own_m = (np.cumsum(asks_n) - 1)[ranks.image_of_text_m.cpu().numpy()]
    sums_p = row_q[:pictures] + np.bincount(own_m, row_q[pictures:], pictures)
    whole: list[float] = (sums_p * pictures / len(row_q)).round(_DIGITS).tolist()
    return [*whole, *whole]


def candidates_told(
    sets: Mapping[str, KeptSet], pictures: Mapping[str, tuple[int, int]]
) -> str | None:
    """Tell in a sentence which figures count as among another number of candidates; None: none do.

    Args:
        pictures: of each retained set, how many ``val`` has, and ``test``.
    """
    parts = [
        f"{name} {val:,} and {test:,}"
        for name, (val, test) in sorted(pictures.items())
        if sets[name].pairs and not val <= test <= val * _AS_MANY
    ]
    return (
        "Of what is to be retained val and test have different numbers of pictures to be found "
        f"among, which moves recall; for the choice what is kept counts as among those of test: "
        f"{', '.join(parts)}."
        if parts
        else None
    )


def expected_told(metric: str, pictures: int) -> str | None:
    """Tell in a sentence what is expected of the target; None where validation says it as it is.

    Args:
        pictures: that test has.
    """
    return (
        f"{metric} depends on how many candidates there are: what is expected counts as among the "
        f"{pictures:,} pictures of test."
        if "recall@" in metric
        else None
    )


def moved_answers(ranks_q: NDArray[np.int64], wrong: int, others: int, k: int) -> _Array:
    """Answers whose mean is the recall at ``k``: (Q,).

    Args:
        ranks_q: how many of the ``wrong`` candidates came before the right one.
        wrong, others: how many wrong ones there were, and how many there are to be.
    """
    scores_r = found_among(np.arange(wrong + 1), wrong, others, k)
    scores_q = scores_r[np.minimum(ranks_q, wrong)]
    mean_d, recall_d = _curve(scores_r, wrong, others, k)
    half = (mean_d[-1] - mean_d[0]) / (2 * len(ranks_q))  # of one query: no model is perfect
    mean = np.clip(scores_q.mean(), mean_d[0] + half, mean_d[-1] - half)
    recall = np.interp(mean, mean_d, recall_d)
    steps_d = np.gradient(mean_d)  # none where all are found, and of a single candidate
    slope_d = np.divide(np.gradient(recall_d), steps_d, np.zeros_like(steps_d), where=steps_d > 0)
    slope = np.interp(mean, mean_d, slope_d)
    moved: _Array = recall + slope * (scores_q - scores_q.mean())
    return moved


def found_in_part(ranks_q: NDArray[np.int64], wrong: int, others: int, k: int) -> _Array:
    """The chance that each query's right answer is among the first ``k`` where ``others`` of the
    ``wrong`` candidates are drawn: (Q,)."""
    above_q = np.minimum(ranks_q, wrong)
    drawn_k1 = np.arange(min(k, others + 1))[:, None]
    chances_kq = _log_ways(above_q, drawn_k1) + _log_ways(wrong - above_q, others - drawn_k1)
    found: _Array = np.exp(chances_kq - _log_ways(wrong, others)).sum(axis=0)
    return np.minimum(found, 1.0)


def _log_ways(of: Any, drawn: Any) -> Any:
    """Logarithm of the number of ways to draw so many; of too many there is none."""
    can = drawn <= of
    some = np.where(can, drawn, 0)
    return np.where(can, -np.log(of + 1.0) - betaln(of - some + 1.0, some + 1.0), -np.inf)


def found_among(ranks_q: NDArray[np.int64], wrong: int, others: int, k: int) -> _Array:
    """The score of each query, see above: (Q,)."""
    before_q, behind_q = ranks_q + 0.5, wrong - ranks_q + 0.5
    above_k1 = np.arange(min(k, others + 1))[:, None]
    ways_k1 = -np.log(others + 1.0) - betaln(others - above_k1 + 1.0, above_k1 + 1.0)
    chances_kq = betaln(above_k1 + before_q, others - above_k1 + behind_q)
    found: _Array = np.exp(ways_k1 + chances_kq - betaln(before_q, behind_q)).sum(axis=0)
    return np.minimum(found, 1.0)


def _curve(scores_r: _Array, wrong: int, others: int, k: int) -> tuple[_Array, _Array]:
    """The mean of scores, and the recall among others, at each of ``_APART``: (D,), (D,)."""
    above_h = ndtr(-_HEIGHTS)
    below_rh = bdtr(np.arange(wrong + 1)[:, None], wrong, above_h)  # that at most r lie above
    score_h = np.diff(below_rh, axis=0, prepend=0.0).T @ scores_r
    found_h = bdtr(min(k - 1, others), others, above_h)
    weights_dh = np.exp(-0.5 * (_HEIGHTS - _APART[:, None]) ** 2)
    weights_dh /= weights_dh.sum(axis=1, keepdims=True)
    return weights_dh @ score_h, weights_dh @ found_h
