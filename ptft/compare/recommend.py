"""Recommends an arm at each budget by a stated rule, and says how sure that is.

The rule, on validation alone:

1. Believe: of every arm its figure on the target, from the queries that all arms were asked
   (:mod:`ptft.compare.posterior`), and what a test would say that it keeps
   (:mod:`ptft.compare.kept`); each with its error.
2. Allow the arms that keep ``retention`` with a probability of at least
   ``retention_probability``. The starting model is always allowed, so "do not fine-tune" can win.
3. Take the allowed arm whose figure is expected to be highest: it has the least expected regret,
   since what the best arm has is the same whichever is taken. Of equal ones the one that is higher
   at the other budgets.

docs/reference/compare-rule.md derives it. Test figures only tell how good the choice was (its
regret).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ptft.compare.gathered import Arm
from ptft.compare.kept import KeptSet, kept_belief
from ptft.compare.posterior import ArmAnswers, Belief, target_belief

__all__ = ["Recommendation", "pareto", "recommend"]


@dataclass(frozen=True)
class Recommendation:
    """What to take at a budget; shares of 1.

    Attributes:
        arm: its name.
        equals: ``arm``, and those allowed that validation cannot tell from it and that are lower by
            no more than ``margin``; highest first.
        expected_regret: what is expected to be lost against the best arm that keeps enough.
        regret_low, regret_high: where the regret on test is expected to lie.
        holds: probability that the arm keeps what was asked.
        kept_low, kept_high: where what it keeps on test is expected to lie.
        figures: what each arm of the budget is expected to have.
        holding: the probability that each arm keeps what was asked.
        test, test_retention: what it has there.
        regret: test figure of the best candidate on test, less that of ``arm``.
        test_best: that candidate.
    """

    budget: int
    arm: str
    equals: tuple[str, ...]
    expected_regret: float
    regret_low: float
    regret_high: float
    holds: float
    kept_low: float
    kept_high: float
    figures: dict[str, float]
    holding: dict[str, float]
    test: float
    test_retention: float
    regret: float
    test_best: str


@dataclass(frozen=True)
class _Budget:
    """The arms of a budget, what is believed of them, and by how much each lies above the others
    at the other budgets, on average."""

    arms: list[Arm]
    start: int
    target: Belief
    elsewhere_a: NDArray[np.float64]
    kept: Belief
    kept_on_test: Belief
    allowed_a: NDArray[np.bool_]

    @property
    def ranked(self) -> list[int]:
        """The allowed arms by what their figures are expected to be, highest first."""
        return sorted(
            map(int, np.flatnonzero(self.allowed_a)),
            key=lambda n: (
                -round(float(self.target.mean_a[n]), 9),
                -round(float(self.elsewhere_a[n]), 9),
                self.arms[n].flops,  # nothing tells them apart; the start takes none
                self.arms[n].name,
            ),
        )


def recommend(
    arms: Sequence[Arm],
    *,
    retention: float,
    probability: float,
    confidence: float,
    margin: float,
    sets: Mapping[str, KeptSet] | None = None,
) -> list[Recommendation]:
    """Choose an arm at every budget that has a start, see ``CompareSection`` for what is asked.

    Args:
        sets: see :func:`ptft.compare.selected.kept_sets`.
    """
    budgets = {
        budget: [arm for arm in arms if arm.budget == budget]
        for budget in sorted({arm.budget for arm in arms if _is_start(arm)})
    }
    targets = {budget: target_belief([arm.asked for arm in at]) for budget, at in budgets.items()}
    found = []
    for budget, at in budgets.items():
        start = next(number for number, arm in enumerate(at) if _is_start(arm))
        elsewhere_a = _elsewhere(at, budgets, targets)
        kept = kept_belief([arm.val_kept for arm in at], first=start, sets=sets, of_val=True)
        kept_on_test = kept_belief([arm.test_kept for arm in at], first=start, sets=sets)
        allowed_a = kept.surely(probability) >= retention - 1e-9
        allowed_a[start] = True
        one = _Budget(at, start, targets[budget], elsewhere_a, kept, kept_on_test, allowed_a)
        found.append(_recommended(one, retention=retention, confidence=confidence, margin=margin))
    return found


def _recommended(
    at: _Budget, *, retention: float, confidence: float, margin: float
) -> Recommendation:
    arms, ranked = at.arms, at.ranked
    taken = ranked[0]
    equals = [
        n for n in ranked if n == taken or at.target.alike(taken, n, margin, confidence=confidence)
    ]
    first = max(
        (arm for arm in arms if _is_start(arm) or arm.test_retention >= retention),
        key=lambda arm: arm.test,
    )
    believed, shown = _regrets(at, taken, retention)
    low, high = np.quantile(shown, [(1 - confidence) / 2, (1 + confidence) / 2])
    kept_low, kept_high = at.kept.plus(at.kept_on_test).interval(taken, confidence=confidence)
    names = [arm.name for arm in arms]
    holding = dict(zip(names, at.kept.at_least(retention).tolist(), strict=True))
    return Recommendation(
        budget=arms[taken].budget,
        arm=arms[taken].name,
        equals=tuple(arms[number].name for number in equals),
        expected_regret=float(believed.mean()),
        regret_low=float(low),
        regret_high=float(high),
        holds=holding[names[taken]],
        kept_low=kept_low,
        kept_high=kept_high,
        figures=dict(zip(names, at.target.mean_a.tolist(), strict=True)),
        holding=holding,
        test=arms[taken].test,
        test_retention=arms[taken].test_retention,
        regret=max(0.0, first.test - arms[taken].test),
        test_best=first.name,
    )


def pareto(arms: Sequence[Arm]) -> list[Arm]:
    """Find the arms that no other beats on target and retention at once, sorted by target."""
    front = [
        arm
        for arm in arms
        if not any(
            other.test >= arm.test
            and other.test_retention >= arm.test_retention
            and (other.test, other.test_retention) != (arm.test, arm.test_retention)
            for other in arms
        )
    ]
    return sorted(front, key=lambda arm: arm.test)


def _is_start(arm: Arm) -> bool:
    return arm.kind == "zero_shot"


def _elsewhere(
    at: Sequence[Arm], budgets: Mapping[int, Sequence[Arm]], targets: Mapping[int, Belief]
) -> NDArray[np.float64]:
    """By how much each arm of a budget lies above the arms at the others, on average; one that is
    nowhere else by nothing."""
    gaps: dict[str, list[float]] = {arm.name: [] for arm in at}
    for budget, others in budgets.items():
        if budget != at[0].budget:
            mean_a = targets[budget].mean_a
            for arm, gap in zip(others, (mean_a - mean_a.mean()).tolist(), strict=True):
                gaps.setdefault(arm.name, []).append(gap)
    return np.array([np.mean(gaps[arm.name] or [0.0]) for arm in at])


def _regrets(
    at: _Budget, taken: int, retention: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Draws of what is lost against the best arm that keeps enough: in truth, and as a test of the
    size that was had would show it."""

    def lost(target: Belief, kept: Belief) -> NDArray[np.float64]:
        figures_da, enough_da = target.draws(0), kept.draws(1) >= retention
        enough_da[:, at.start] = True
        best_d = np.where(enough_da, figures_da, -np.inf).max(axis=1)
        return np.maximum(0.0, best_d - figures_da[:, taken])

    target_on_test = target_belief(
        [ArmAnswers(range(arm.test_sq.shape[1]), arm.test_sq) for arm in at.arms]
    )
    shown = lost(at.target.plus(target_on_test), at.kept.plus(at.kept_on_test))
    return lost(at.target, at.kept), shown
