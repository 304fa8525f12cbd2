"""What is believed of the share that arms keep of what the start could do before.

What is asked about is what test would show. Validation is another measure than test in two ways
that are known. A retrieval asks each pair twice, by its picture and by its caption, and what is
hard one way is hard the other: what chance drew are pairs. And the more candidates there are, the
lower is recall, of weak models more than of strong ones: answers come as among those of test
(:mod:`ptft.compare.candidates`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ptft.compare.posterior import Belief, error_of_means
from ptft.compare.stats import Hits

__all__ = ["KeptSet", "kept_belief"]

_Array = NDArray[np.float64]


@dataclass(frozen=True)
class KeptSet:
    """How answers on a retained set are read.

    Attributes:
        luck: the part of the start's figure on ``val`` that is not luck; what an arm lost there is
            less by that, though never less than nothing.
        pairs: a retrieval, whose queries are its pictures and then their captions.
    """

    luck: float = 1.0
    pairs: bool = False


def kept_belief(
    kept: Sequence[Mapping[str, Hits]],
    *,
    first: int,
    sets: Mapping[str, KeptSet] | None = None,
    of_val: bool = False,
) -> Belief:
    """What each arm keeps: the mean over the sets of its figure as a share of the start's.

    A share is a ratio of two means over the same queries, and its error that of the mean of
    (arm's answer - share x start's answer) / start's figure (the delta method).

    Args:
        kept: of each arm, its hits on each set; none where nothing is to be retained.
        first: number of the start, which keeps all, for certain.
        sets: how the sets are read; those without are of queries that stand by themselves.
        of_val: answers are those of ``val``, where a start may have had luck.
    """
    arms, start = len(kept), kept[first]
    if not start:
        return Belief(np.ones(arms), np.zeros((arms, arms)))
    mean_a, cov_aa = np.zeros(arms), np.zeros((arms, arms))
    for name in start:
        read = (sets or {}).get(name, KeptSet())
        answers_aq = np.stack([one[name].mean(axis=0) for one in kept])
        if answers_aq[first].sum() < 1.0:  # nothing that could be lost
            mean_a += 1.0 / len(start)
            continue
        answers_aq = _units(answers_aq, read)
        start_q = answers_aq[first]
        figure = start_q.mean()
        share_a = answers_aq.mean(axis=1) / figure
        lost_aq = (answers_aq - share_a[:, None] * start_q) / figure
        luck = read.luck if of_val else 1.0
        mean_a += np.minimum(share_a / luck, np.maximum(share_a, 1.0)) / len(start)
        cov_aa += error_of_means(lost_aq, scale=1.0 / figure) / len(start) ** 2
    cov_aa[first], cov_aa[:, first], mean_a[first] = 0.0, 0.0, 1.0
    return Belief(mean_a, cov_aa)


def _units(answers_aq: _Array, read: KeptSet) -> _Array:
    """The answers to what chance drew: to both questions of a pair together."""
    pairs, odd = divmod(answers_aq.shape[1], 2)
    if not read.pairs or odd:  # odd: a stranger's cell
        return answers_aq
    return (answers_aq[:, :pairs] + answers_aq[:, pairs:]) / 2
