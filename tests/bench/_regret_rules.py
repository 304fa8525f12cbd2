"""Other rules than that of `ptft compare`, to be held against it on the same cells.

Each gives the name of an arm for every budget.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from ptft.compare.gathered import Arm
from ptft.compare.kept import KeptSet, kept_belief
from ptft.compare.posterior import Belief, target_belief
from ptft.compare.stats import paired_interval
from tests.bench._regret_pooled import pooled_beliefs

__all__ = ["bootstrapped", "cheapest", "pooled", "tied_elsewhere"]

_DRAWS = 500


def cheapest(
    arms: Sequence[Arm], retention: float, confidence: float, margin: float
) -> dict[int, str]:
    """The first rule: a hard bound on what validation shows, then the highest, then the
    cheapest of those that a bootstrap cannot tell from it."""
    found = {}
    for budget, at in _budgets(arms).items():
        enough = [arm for arm in at if _is_start(arm) or arm.val_retention >= retention]
        best = max(enough, key=lambda arm: (arm.val, -arm.flops))
        equals = [
            arm
            for arm in enough
            if best.val - arm.val <= margin + 1e-9
            and paired_interval(best.val_sq, arm.val_sq, confidence=confidence)[0] <= 0.0
        ]
        found[budget] = min([best, *equals], key=lambda arm: (arm.flops, -arm.val)).name
    return found


def tied_elsewhere(
    arms: Sequence[Arm],
    retention: float,
    probability: float,
    sets: Mapping[str, KeptSet],
    *,
    margin: float,
) -> dict[int, str]:
    """The highest; but of those that are lower by no more than the margin and not told from it the
    one that did better at the other budgets."""
    budgets = _budgets(arms)
    figures = {budget: target_belief([arm.asked for arm in at]) for budget, at in budgets.items()}
    behind: dict[int, dict[str, float]] = {}  # what each arm lies below the best allowed
    allowed = {}
    for budget, at in budgets.items():
        start = next(number for number, arm in enumerate(at) if _is_start(arm))
        kept = _kept(at, start, sets)
        allowed_a = kept.surely(probability) >= retention - 1e-9
        allowed_a[start] = True
        mean_a = figures[budget].mean_a
        highest = int(np.argmax(np.where(allowed_a, mean_a, -np.inf)))
        allowed[budget] = highest, np.flatnonzero(allowed_a)
        behind[budget] = dict(
            zip([arm.name for arm in at], (mean_a - mean_a[highest]).tolist(), strict=True)
        )
    found = {}
    for budget, at in budgets.items():
        highest, may = allowed[budget]
        tied = [at[highest].name]
        figure = figures[budget]
        tied += [at[n].name for n in may if figure.alike(highest, int(n), margin, confidence=0.95)]
        others = [gaps for other, gaps in behind.items() if other != budget]
        found[budget] = max(
            tied,
            key=lambda name: (
                sum(gaps.get(name, -1.0) for gaps in others),
                behind[budget][name],
            ),
        )
    return found


def bootstrapped(arms: Sequence[Arm], retention: float, probability: float) -> dict[int, str]:
    """Draw queries with replacement; take the arm that loses least on average, of those that keep
    enough in so many draws."""
    found = {}
    for budget, at in _budgets(arms).items():
        rng = np.random.default_rng(0)
        queries = at[0].asked.hits_sq.shape[1]
        drawn_dq = rng.multinomial(queries, np.full(queries, 1 / queries), size=_DRAWS) / queries
        answers_aq = np.stack([np.nanmean(arm.asked.hits_sq, axis=0) for arm in at])
        figures_da = drawn_dq @ answers_aq.T
        shares_da = np.ones((_DRAWS, len(at)))
        start = next(number for number, arm in enumerate(at) if _is_start(arm))
        for name in at[start].val_kept:
            rows_aq = np.stack([arm.val_kept[name].mean(axis=0) for arm in at])
            size = rows_aq.shape[1]
            means_da = rng.multinomial(size, np.full(size, 1 / size), size=_DRAWS) @ rows_aq.T
            lost_da = 1.0 - means_da / np.maximum(means_da[:, [start]], 1e-9)
            shares_da -= lost_da / len(at[start].val_kept)
        enough_da = shares_da >= retention
        enough_da[:, start] = True
        best_d = np.where(enough_da, figures_da, -np.inf).max(axis=1)
        regret_a = np.maximum(0.0, best_d[:, None] - figures_da).mean(axis=0)
        allowed_a = enough_da.mean(axis=0) >= probability
        found[budget] = at[int(np.argmin(np.where(allowed_a, regret_a, np.inf)))].name
    return found


def pooled(
    arms: Sequence[Arm], retention: float, probability: float, sets: Mapping[str, KeptSet]
) -> dict[int, str]:
    """The rule before this one: an arm's figure by all budgets together, near ones most."""
    budgets = _budgets(arms)
    asked = {budget: {arm.name: arm.asked for arm in at} for budget, at in budgets.items()}
    found = {}
    for (budget, at), figure in zip(budgets.items(), pooled_beliefs(asked), strict=True):
        start = next(number for number, arm in enumerate(at) if _is_start(arm))
        allowed_a = _kept(at, start, sets).surely(probability) >= retention - 1e-9
        allowed_a[start] = True
        found[budget] = at[int(np.argmax(np.where(allowed_a, figure.mean_a, -np.inf)))].name
    return found


def _budgets(arms: Sequence[Arm]) -> dict[int, list[Arm]]:
    return {
        budget: [arm for arm in arms if arm.budget == budget]
        for budget in sorted({arm.budget for arm in arms})
    }


def _kept(at: Sequence[Arm], start: int, sets: Mapping[str, KeptSet]) -> Belief:
    return kept_belief([arm.val_kept for arm in at], first=start, sets=sets, of_val=True)


def _is_start(arm: Arm) -> bool:
    return arm.kind == "zero_shot"
