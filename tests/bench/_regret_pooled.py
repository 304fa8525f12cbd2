"""What was believed of the arms at all budgets together, since an arm behaves alike at budgets that
lie near each other. It is better where few questions were asked at a budget, and others elsewhere.

The figure of an arm at a budget is the budget's own level, of which nothing is believed beforehand,
and what the arm adds there. That is normal around none, with the same deviation at all budgets, and
a Gaussian process in two ways (Rasmussen & Williams 2006, section 4.2.1). Between two budgets the
correlation falls with the number of times that the labels are quadrupled. Between two arms it falls
with how often they answer otherwise, since those that answer nearly all questions alike cannot lie
far apart: a mix with all of its arm's weights is that arm. How far the arms lie apart, and how
alike they stay, is not known: a grid of both is weighed by the likelihood of what was measured, the
levels integrated out (REML; Patterson & Thompson 1971).
"""

from collections.abc import Mapping, Sequence
from itertools import product
from math import sqrt

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import block_diag

from ptft.compare.posterior import ArmAnswers, Belief, answers_in_common, error_of_means

__all__ = ["pooled_beliefs"]

_APART = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32)  # deviations of what arms add, shares of 1
_ALIKE = (0.3, 0.6, 0.8, 0.95)  # correlations at a budget and at four times as many labels
_LEAST = 1e-8  # variance of what was measured without error

_Array = NDArray[np.float64]


def pooled_beliefs(asked: Mapping[int, Mapping[str, ArmAnswers]]) -> list[Belief]:
    """The figures of the arms at each budget, by what they were asked there and elsewhere.

    Args:
        asked: by budget and name of an arm; the same name is the same arm.
    """
    if not asked:
        return []
    places = [(budget, name) for budget, arms in asked.items() for name in arms]
    parts = [answers_in_common(list(arms.values())) for arms in asked.values()]
    mean_n, error_nn = _measured(parts)
    level_nb = np.array([[place[0] == budget for budget in asked] for place in places], float)
    answers = [answers_aq for _, answers_aq in parts]
    like_nn = _likeness(answers, [list(arms) for arms in asked.values()])
    quadrupled_n = np.log([budget for budget, _ in places]) / np.log(4)
    far_nn = np.abs(quadrupled_n[:, None] - quadrupled_n)
    found = [
        _posterior(mean_n, error_nn, level_nb, apart**2 * alike**far_nn * like_nn)
        for apart, alike in product(_APART, _ALIKE)
    ]
    likelihoods = np.array([likelihood for likelihood, _ in found])
    weights = np.exp(likelihoods - likelihoods.max())
    weights /= weights.sum()
    whole = _mixture(weights, [belief for _, belief in found])
    ends = np.cumsum([len(arms) for arms in asked.values()])
    own = [slice(end - len(arms), end) for end, arms in zip(ends, asked.values(), strict=True)]
    return [Belief(whole.mean_a[part], whole.cov_aa[part, part]) for part in own]


def _measured(parts: Sequence[tuple[list[object], _Array]]) -> tuple[_Array, _Array]:
    """The mean of each arm at each budget, and the covariance of their errors: (N,), (N, N).

    A smaller budget's queries are a part of a larger one's, and its luck with them is the other's.
    All arms of a budget are as uncertain as they are on average: whose answers are nearly all wrong
    spread little, and a level that goes by certainty would lie at those that are worst.
    """
    error_nn = block_diag(*[error_of_means(answers_aq) for _, answers_aq in parts])
    ends = np.cumsum([len(answers_aq) for _, answers_aq in parts])
    for one, (queries, answers_aq) in enumerate(parts):
        place = {query: number for number, query in enumerate(queries)}
        for other in range(one):
            others, others_aq = parts[other]
            shared = [(place[q], number) for number, q in enumerate(others) if q in place]
            if not shared:
                continue
            here, there = map(list, zip(*shared, strict=True))
            product_aa = _centred(answers_aq)[:, here] @ _centred(others_aq)[:, there].T
            rows = slice(ends[one] - len(answers_aq), ends[one])
            columns = slice(ends[other] - len(others_aq), ends[other])
            error_nn[rows, columns] = product_aa
            error_nn[columns, rows] = product_aa.T
    spread_n = np.sqrt(np.diag(error_nn))
    for end, (_, answers_aq) in zip(ends, parts, strict=True):
        own_a = spread_n[end - len(answers_aq) : end]
        own_a[:] = sqrt(np.mean(own_a**2)) / own_a
    error_nn *= np.outer(spread_n, spread_n)
    return np.concatenate([answers_aq.mean(axis=1) for _, answers_aq in parts]), error_nn


def _likeness(answers: Sequence[_Array], named: Sequence[Sequence[str]]) -> _Array:
    """The correlation of what arms add, by the mean square of the differences between the answers
    that they gave together, as a share of what it is on average over all pairs: (N, N).

    Args:
        answers: of each budget, (A, Q).
        named: its arms.
    """
    named_n = [name for arms in named for name in arms]
    names = sorted(set(named_n))
    place = {name: number for number, name in enumerate(names)}
    apart_kk, count_kk = np.zeros((len(names),) * 2), np.zeros((len(names),) * 2)
    for answers_aq, arms in zip(answers, named, strict=True):
        own = np.ix_(*[[place[name] for name in arms]] * 2)
        for one, row_q in zip(own[0].ravel(), answers_aq, strict=True):
            apart_kk[one, own[1]] += ((answers_aq - row_q) ** 2).sum(axis=1)
        count_kk[own] += answers_aq.shape[1]
    apart_kk /= np.maximum(count_kk, 1.0)
    pairs_kk = (count_kk > 0) & ~np.eye(len(names), dtype=bool)
    usual = float(apart_kk[pairs_kk].mean()) if pairs_kk.any() else 0.0
    apart_kk[count_kk == 0] = usual  # never asked at one budget
    like_kk = np.exp(-apart_kk / (usual or 1.0))
    values_k, vectors_kk = np.linalg.eigh(like_kk)  # below none where not all were asked together
    like_kk = vectors_kk * np.clip(values_k, 0.0, None) @ vectors_kk.T
    own_n = [place[name] for name in named_n]
    found: _Array = like_kk[np.ix_(own_n, own_n)]
    return found


def _centred(answers_aq: _Array) -> _Array:
    """What answers lie above their mean, so scaled that products of them are covariances of
    means, as ``error_of_means`` has them."""
    queries = answers_aq.shape[1]
    centred: _Array = answers_aq - answers_aq.mean(axis=1, keepdims=True)
    return centred / sqrt(queries * (queries + 1))


def _posterior(
    mean_n: _Array, error_nn: _Array, level_nb: _Array, prior_nn: _Array
) -> tuple[float, Belief]:
    """The restricted log likelihood of a prior, and what is believed by it.

    Args:
        mean_n, error_nn: what was measured, and the covariance of its errors.
        level_nb: which budget each is of.
        prior_nn: covariance of what arms add to their budget's level.
    """
    whole_nn = error_nn + prior_nn + _LEAST * np.eye(len(mean_n))
    inner_bb = level_nb.T @ np.linalg.solve(whole_nn, level_nb)
    level_b = np.linalg.solve(inner_bb, level_nb.T @ np.linalg.solve(whole_nn, mean_n))
    left_n = mean_n - level_nb @ level_b
    likelihood = -0.5 * (
        np.linalg.slogdet(whole_nn)[1]
        + np.linalg.slogdet(inner_bb)[1]
        + left_n @ np.linalg.solve(whole_nn, left_n)
    )
    gain_nn = np.linalg.solve(whole_nn, prior_nn).T
    bare_nb = level_nb - gain_nn @ level_nb
    cov_nn = prior_nn - gain_nn @ prior_nn + bare_nb @ np.linalg.solve(inner_bb, bare_nb.T)
    return float(likelihood), Belief(level_nb @ level_b + gain_nn @ left_n, cov_nn)


def _mixture(weights: _Array, beliefs: list[Belief]) -> Belief:
    """The mean and the covariance of several beliefs, of which one is right."""
    means_gn = np.stack([one.mean_a for one in beliefs])
    mean_n = weights @ means_gn
    apart_gn = means_gn - mean_n
    within_nn = np.einsum("g,gnm->nm", weights, np.stack([one.cov_aa for one in beliefs]))
    return Belief(mean_n, within_nn + (weights * apart_gn.T) @ apart_gn)
