"""What is believed of the share that arms keep of what the start could do before.

What is asked about is what test would show. Validation is another measure than test in two ways
that are known. A retrieval asks each pair twice, by its picture and by its caption, and what is
hard one way is hard the other: what chance drew are pairs. And the more candidates there are, the
lower is recall, of weak models more than of strong ones, so that a share on few says too much.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri

from ptft.compare.posterior import Belief, error_of_means
from ptft.compare.stats import Hits

__all__ = ["KeptSet", "are_read_anew", "kept_belief", "with_candidates"]

_Array = NDArray[np.float64]


@dataclass(frozen=True)
class KeptSet:
    """How answers on a retained set are read.

    Attributes:
        luck: the part of the start's figure on ``val`` that is not luck; what an arm lost there is
            less by that, though never less than nothing.
        k: of a retrieval, whose queries are its pictures and then their captions: the rank that
            counts as found.
    """

    luck: float = 1.0
    k: int | None = None


def kept_belief(
    kept: Sequence[Mapping[str, Hits]],
    *,
    first: int,
    sets: Mapping[str, KeptSet] | None = None,
    test: Mapping[str, int] | None = None,
) -> Belief:
    """What each arm keeps: the mean over the sets of its figure as a share of the start's.

    A share is a ratio of two means over the same queries, and its error that of the mean of
    (arm's answer - share x start's answer) / start's figure (the delta method).

    Args:
        kept: of each arm, its hits on each set; none where nothing is to be retained.
        first: number of the start, which keeps all, for certain.
        sets: how the sets are read; those without are of queries that stand by themselves.
        test: how many queries test has of each set, where hits are those of ``val`` and the share
            that test would show is asked for.
    """
    arms, start = len(kept), kept[first]
    if not start:
        return Belief(np.ones(arms), np.zeros((arms, arms)))
    mean_a, cov_aa = np.zeros(arms), np.zeros((arms, arms))
    for name in start:
        read = (sets or {}).get(name, KeptSet())
        answers_aq = np.stack([one[name].mean(axis=0) for one in kept])
        if answers_aq[first].mean() == 0.0:  # nothing that could be lost
            mean_a += 1.0 / len(start)
            continue
        if test and read.k is not None:
            answers_aq = with_candidates(answers_aq, read.k, answers_aq.shape[1], test[name])
        answers_aq = _units(answers_aq, read)
        start_q = answers_aq[first]
        figure = start_q.mean()
        share_a = answers_aq.mean(axis=1) / figure
        lost_aq = (answers_aq - share_a[:, None] * start_q) / figure
        luck = read.luck if test else 1.0
        mean_a += np.minimum(share_a / luck, np.maximum(share_a, 1.0)) / len(start)
        cov_aa += error_of_means(lost_aq, scale=1.0 / figure) / len(start) ** 2
    cov_aa[first], cov_aa[:, first], mean_a[first] = 0.0, 0.0, 1.0
    return Belief(mean_a, cov_aa)


def _units(answers_aq: _Array, read: KeptSet) -> _Array:
    """The answers to what chance drew: to both questions of a pair together."""
    pairs, odd = divmod(answers_aq.shape[1], 2)
    if read.k is None or odd:  # pictures with several captions: whose they are is not on record
        return answers_aq
    return (answers_aq[:, :pairs] + answers_aq[:, pairs:]) / 2


def are_read_anew(k: int | None, asked: int, wanted: int) -> bool:
    """Whether answers to so many questions say something else of so many others; those of which
    more than half as many count as found say nothing of any."""
    return k is not None and asked != wanted and 2 * k < min(asked, wanted)


def with_candidates(answers_aq: _Array, k: int, asked: int, wanted: int) -> _Array:
    """Answers whose mean is the recall at ``k`` with another number of candidates.

    The score of a right answer and those of wrong ones are normal with one deviation (Green & Swets
    1966): with N candidates the right one is found where it lies above the part k/N of the wrong
    ones, so that recall is Phi(d - z(1 - k/N)), and d the model's own. A retrieval with as many
    pictures as captions has N candidates where it asks 2 N questions.

    Args:
        asked, wanted: questions, both ways together, of the set that was asked, and of the other.
    """
    if not are_read_anew(k, asked, wanted):
        return answers_aq
    higher = ndtri(1.0 - 2 * k / wanted) - ndtri(1.0 - 2 * k / asked)
    mean_a = answers_aq.mean(axis=1, keepdims=True)
    here_a = ndtri(np.clip(mean_a, 0.5 / asked, 1.0 - 0.5 / asked))
    there_a = here_a - higher
    steeper_a = np.exp((here_a**2 - there_a**2) / 2)  # the curve's slope: of errors, to first order
    moved: _Array = ndtr(there_a) + steeper_a * (answers_aq - mean_a)
    return moved
