"""What is believed of the arms at a budget, given the queries that each was asked.

An arm's figure is a mean over queries. Queries are what chance drew, so its error is that of a mean
of as many independent answers; seeds answer the same queries, and are averaged first. The errors of
two arms go together, since what makes a query hard is hard for both: beliefs are normal over all
arms at once, with the covariance of their answers. One more query is imagined that the arms answer
independently, by chance, so that few queries which all arms answer alike prove nothing for certain
(as a Beta(1/2, 1/2) of Jeffreys' would for one arm alone).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri

from ptft.compare.stats import Hits

__all__ = [
    "ArmAnswers",
    "Belief",
    "answers_in_common",
    "error_of_means",
    "target_belief",
]

_DRAWS = 4000
_CHANCE = 0.25  # variance of an answer that is right as often as wrong


@dataclass(frozen=True)
class Belief:
    """A normal distribution over the figures of A arms.

    Attributes:
        mean_a: (A,), shares of 1.
        cov_aa: (A, A).
    """

    mean_a: NDArray[np.float64]
    cov_aa: NDArray[np.float64]

    @property
    def deviation_a(self) -> NDArray[np.float64]:
        """Standard deviation of each arm's figure."""
        deviation: NDArray[np.float64] = np.sqrt(np.diag(self.cov_aa))
        return deviation

    def at_least(self, bound: float) -> NDArray[np.float64]:
        """The probability that each arm's figure is at least ``bound``: (A,)."""
        gap_a, deviation_a = self.mean_a - bound, self.deviation_a
        certain = deviation_a < 1e-9
        chance: NDArray[np.float64] = ndtr(gap_a / np.where(certain, 1.0, deviation_a))
        return np.where(certain, (gap_a > -1e-9).astype(float), chance)

    def surely(self, probability: float) -> NDArray[np.float64]:
        """The figure that each arm reaches with a probability: (A,)."""
        reached: NDArray[np.float64] = self.mean_a - ndtri(probability) * self.deviation_a
        return reached

    def interval(self, arm: int, *, confidence: float) -> tuple[float, float]:
        """The central interval of one arm's figure."""
        reach = float(ndtri((1 + confidence) / 2) * self.deviation_a[arm])
        return float(self.mean_a[arm]) - reach, float(self.mean_a[arm]) + reach

    def alike(self, one: int, other: int, margin: float, *, confidence: float) -> bool:
        """Whether an arm's figure is lower than another's by no more than ``margin``, and the
        interval of the difference includes none."""
        gap = float(self.mean_a[one] - self.mean_a[other])
        cov = self.cov_aa
        error = float(np.sqrt(max(0.0, cov[one, one] + cov[other, other] - 2 * cov[one, other])))
        return gap <= margin + 1e-9 and gap <= float(ndtri((1 + confidence) / 2)) * error + 1e-9

    def plus(self, other: "Belief") -> "Belief":
        """With the error of another measurement, whose mean does not matter."""
        return Belief(self.mean_a, self.cov_aa + other.cov_aa)

    def draws(self, seed: int) -> NDArray[np.float64]:
        """Draw figures of all arms together: (draws, A)."""
        values, vectors = np.linalg.eigh(self.cov_aa)
        normal = np.random.default_rng(seed).standard_normal((_DRAWS, len(self.mean_a)))
        drawn: NDArray[np.float64] = self.mean_a + (
            normal * np.sqrt(np.clip(values, 0.0, None)) @ vectors.T
        )
        return drawn


@dataclass(frozen=True)
class ArmAnswers:
    """What the seeds of an arm were asked, and how they answered.

    Attributes:
        queries: Q of them, each told from the others.
        hits_sq: (S, Q), NaN where a seed was not asked.
    """

    queries: Sequence[object]
    hits_sq: Hits


def target_belief(asked: Sequence[ArmAnswers]) -> Belief:
    """The figure of each arm, by the queries that all of them were asked."""
    _, answers_aq = answers_in_common(asked)
    return Belief(answers_aq.mean(axis=1), error_of_means(answers_aq))


def answers_in_common(asked: Sequence[ArmAnswers]) -> tuple[list[object], NDArray[np.float64]]:
    """The queries that all arms were asked, and how each answered, its seeds averaged: (A, Q)."""
    common = set(asked[0].queries).intersection(*(one.queries for one in asked[1:]))
    queries = [query for query in asked[0].queries if query in common]
    rows = []
    for one in asked:
        place = {query: number for number, query in enumerate(one.queries)}
        hits_sq = one.hits_sq[:, [place[query] for query in queries]]
        rows.append(np.nansum(hits_sq, axis=0) / (~np.isnan(hits_sq)).sum(axis=0))
    return queries, np.stack(rows)


def error_of_means(answers_aq: NDArray[np.float64], scale: float = 1.0) -> NDArray[np.float64]:
    """Covariance of the means over the queries, with the one that is imagined."""
    arms, queries = answers_aq.shape
    apart_aq = answers_aq - answers_aq.mean(axis=1, keepdims=True)
    imagined = _CHANCE * scale**2 * np.eye(arms)
    cov: NDArray[np.float64] = (apart_aq @ apart_aq.T + imagined) / (queries + 1) / queries
    return cov
