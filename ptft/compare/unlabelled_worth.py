"""What pictures without labels are worth, counted in labels."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from ptft.compare.arms import START
from ptft.compare.gathered import Arm
from ptft.compare.results import MIXED
from ptft.compare.stats import paired_interval

__all__ = ["Worth", "unlabelled_worth"]

_PICTURES = 1000


@dataclass(frozen=True)
class Worth:
    """What an arm with unlabelled pictures gains at a budget over the best labelled one.

    Attributes:
        arm: that gained; of several the one that validates best.
        over: the labelled arm that validates best there.
        budget: of labels.
        pictures: without labels that were learned from.
        gain, low, high: on test, with the paired interval.
        labels, labels_low, labels_high: how many more labels gain as much there, for 1,000
            pictures; None where the labelled arms never reached it, or at one budget alone.
    """

    arm: str
    over: str
    budget: int
    pictures: int
    gain: float
    low: float
    high: float
    labels: float | None
    labels_low: float | None
    labels_high: float | None

    @property
    def helps(self) -> bool:
        """Whether the gain's interval is above zero."""
        return self.low > 0.0


def unlabelled_worth(arms: Sequence[Arm], *, confidence: float) -> list[Worth]:
    """Hold the arms with unlabelled pictures against the labelled ones at each budget.

    A gain is counted in labels on the curve of the best labelled arms' test figures: a straight
    line over the logarithm of labels between budgets, and nothing beyond the largest. The labels
    are those of a budget, so of each class where it is one of those; a gain is taken to be in
    proportion to the pictures.

    Returns:
        One a budget that has both, ascending.
    """
    found = []
    budgets = sorted({arm.budget for arm in arms})
    best = {budget: _best(arms, budget, unlabelled=False) for budget in budgets}
    for budget in budgets:
        beside, over = _best(arms, budget, unlabelled=True), best[budget]
        if beside is None or over is None:
            continue
        seeds = min(beside.seeds, over.seeds)
        low, high = paired_interval(
            beside.test_sq[:seeds], over.test_sq[:seeds], confidence=confidence
        )
        gain = beside.test - over.test
        curve = [(one.budget, one.test) for one in best.values() if one is not None]
        for_all = [_labels(curve, budget, over.test + moved) for moved in (gain, low, high)]
        share = _PICTURES / beside.unlabelled
        labels = [None if one is None else share * one for one in for_all]
        found.append(
            Worth(beside.name, over.name, budget, beside.unlabelled, gain, low, high, *labels)
        )
    return found


def _best(arms: Sequence[Arm], budget: int, *, unlabelled: bool) -> Arm | None:
    own = [
        arm
        for arm in arms
        if arm.budget == budget
        and bool(arm.unlabelled) == unlabelled
        and arm.kind != START
        and not arm.name.endswith(MIXED)
    ]
    return max(own, key=lambda arm: (arm.val, arm.name), default=None)


def _labels(curve: Sequence[tuple[int, float]], budget: int, figure: float) -> float | None:
    """How many labels beyond (below 0: short of) a budget the curve has a figure at; None where
    it has none. Where it falls it does not tell, so that the highest so far stands."""
    risen: list[tuple[int, float]] = []
    for at, one in sorted(curve):
        risen.append((at, max(one, risen[-1][1]) if risen else one))
    for (less, lower), (more, upper) in pairwise(risen):
        if lower <= figure <= upper and upper > lower:
            share = (figure - lower) / (upper - lower)
            return less * (more / less) ** share - budget
    return None
