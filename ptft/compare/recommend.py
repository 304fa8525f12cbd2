"""Recommends an arm at a budget by a stated rule.

The rule, on validation alone: of the arms that retain enough, the one with the highest target
figure; then the cheapest to train (in counted operations, which no other load of the machine moves)
of those within a margin of it whose paired bootstrap interval against it includes no difference.
Few validation samples tell little apart, so the interval alone would always take the cheapest. Of
two that cost the same the better one is taken. The starting model is always a candidate, so "do not
fine-tune" can win. Test figures only tell how good the choice was (its regret).
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from ptft.compare.results import Cell
from ptft.compare.stats import Hits, band, paired_interval

__all__ = ["Arm", "Recommendation", "gather", "pareto", "recommend"]


@dataclass(frozen=True)
class Arm:
    """An arm at a budget over its seeds: means of its cells.

    Attributes:
        val_sq, test_sq: hits of each seed and query, for intervals.
        low, high: band of the test figure.
        cpu_seconds: of one training, with the search's shared among the seeds.
    """

    name: str
    kind: str
    budget: int
    seeds: int
    val: float
    test: float
    low: float
    high: float
    val_retention: float
    test_retention: float
    test_retained: dict[str, float]
    ece: float
    ece_scaled: float
    trainable_share: float
    cpu_seconds: float
    wall_seconds: float
    gpu_seconds: float
    flops: float
    peak_bytes: int
    artefact_bytes: int
    chosen: dict[str, object]
    val_sq: Hits
    test_sq: Hits


@dataclass(frozen=True)
class Recommendation:
    """What to take at a budget.

    Attributes:
        arm: its name.
        best: the arm with the highest validation figure that retains enough.
        equals: arms that the interval cannot tell from the best one, cheapest first.
        regret: test figure of the best candidate on test, less that of ``arm``.
        test_best: that candidate.
    """

    budget: int
    arm: str
    best: str
    equals: tuple[str, ...]
    test: float
    test_retention: float
    regret: float
    test_best: str


def gather(cells: Iterable[Cell], *, confidence: float) -> list[Arm]:
    """Average the cells of each arm at each budget over their seeds."""
    groups: dict[tuple[str, int], list[Cell]] = {}
    for cell in cells:
        groups.setdefault((cell.arm, cell.budget), []).append(cell)
    return [
        _arm(name, budget, found, confidence=confidence)
        for (name, budget), found in sorted(groups.items(), key=lambda item: item[0][::-1])
    ]


def recommend(
    arms: Sequence[Arm], *, retention: float, confidence: float, margin: float
) -> Recommendation:
    """Choose among the arms of one budget, see ``CompareSection`` for what is asked."""
    candidates = [arm for arm in arms if _is_start(arm) or arm.val_retention >= retention]
    assert candidates, "the starting model is always one"
    best = max(candidates, key=lambda arm: (arm.val, -arm.flops, arm.name))
    equals = [
        arm
        for arm in candidates
        if arm is best
        or (best.val - arm.val <= margin + 1e-9 and _no_difference(best, arm, confidence))
    ]
    equals.sort(key=lambda arm: (arm.flops, arm.artefact_bytes, -arm.val, arm.name))
    taken = equals[0]
    allowed = [arm for arm in arms if _is_start(arm) or arm.test_retention >= retention]
    first = max(allowed, key=lambda arm: arm.test)
    return Recommendation(
        budget=taken.budget,
        arm=taken.name,
        best=best.name,
        equals=tuple(arm.name for arm in equals),
        test=taken.test,
        test_retention=taken.test_retention,
        regret=max(0.0, first.test - taken.test),
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


def _no_difference(best: Arm, arm: Arm, confidence: float) -> bool:
    """Whether a paired interval includes no difference.

    Both arms saw the same validation samples with the same seeds; an unfinished one has fewer.
    """
    seeds = min(len(best.val_sq), len(arm.val_sq))
    low, high = paired_interval(best.val_sq[:seeds], arm.val_sq[:seeds], confidence=confidence)
    return low <= 0.0 <= high


def _arm(name: str, budget: int, cells: list[Cell], *, confidence: float) -> Arm:
    test_sq = _matrix([cell.test_hits for cell in cells])
    low, high = band(test_sq, confidence=confidence)
    costs = [cell.costs for cell in cells]

    def mean(values: Iterable[float]) -> float:
        return float(np.mean(list(values)))

    names = cells[0].test_retained
    return Arm(
        name=name,
        kind=cells[0].kind if not name.endswith("+wise") else "wise",
        budget=budget,
        seeds=len(cells),
        val=mean(cell.val for cell in cells),
        test=mean(cell.test for cell in cells),
        low=low,
        high=high,
        val_retention=mean(cell.val_retention for cell in cells),
        test_retention=mean(cell.test_retention for cell in cells),
        test_retained={key: mean(cell.test_retained[key] for cell in cells) for key in names},
        ece=mean(cell.ece for cell in cells),
        ece_scaled=mean(cell.ece_scaled for cell in cells),
        trainable_share=costs[0].trainable_share,
        cpu_seconds=mean(cost.cpu_seconds for cost in costs)
        + sum(cost.search_cpu_seconds for cost in costs) / len(costs),
        wall_seconds=mean(cost.wall_seconds for cost in costs),
        gpu_seconds=mean(cost.gpu_seconds for cost in costs),
        flops=mean(cost.flops for cost in costs),
        peak_bytes=max(cost.peak_bytes for cost in costs),
        artefact_bytes=costs[0].artefact_bytes,
        chosen=dict(cells[0].chosen),
        val_sq=_matrix([cell.val_hits for cell in cells]),
        test_sq=test_sq,
    )


def _matrix(rows: Sequence[str]) -> Hits:
    width = min(len(row) for row in rows)
    return np.array([[float(bit) for bit in row[:width]] for row in rows])
