"""What more labels would add: a line over the logarithm of labels, with its interval."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ptft.compare.arms import START
from ptft.compare.gathered import Arm
from ptft.compare.recommend import Recommendation
from ptft.compare.stats import paired_interval

__all__ = ["MoreLabels", "more_labels"]


@dataclass(frozen=True)
class MoreLabels:
    """What is read off the two largest budgets.

    Attributes:
        before, last: these budgets.
        moved, moved_low, moved_high: by how much test moved between them, with its interval.
        more: labels beyond the last.
        gain, low, high: what they would add; never beyond all that is left to gain,
            or to lose.
    """

    before: int
    last: int
    moved: float
    moved_low: float
    moved_high: float
    more: int
    gain: float
    low: float
    high: float

    @property
    def tells(self) -> bool:
        """Whether the last two budgets can be told apart, and a line through them says anything."""
        return not self.moved_low <= 0.0 <= self.moved_high


def more_labels(
    arms: Sequence[Arm], chosen: Sequence[Recommendation], *, more: int, confidence: float
) -> MoreLabels | None:
    """Estimate what ``more`` labels beyond the largest budget add; None where there is but one, or
    the start is recommended at both, which no label moves.

    A line through the recommended arms' test figures over the logarithm of labels. Both budgets
    have the same test queries and seeds, so that their difference has a paired interval.
    """
    if len(chosen) < 2:
        return None
    first, second = sorted(chosen, key=lambda one: one.budget)[-2:]
    before, last = (
        next(arm for arm in arms if (arm.name, arm.budget) == (one.arm, one.budget))
        for one in (first, second)
    )
    if before.kind == last.kind == START:
        return None
    seeds = min(before.seeds, last.seeds)
    low, high = paired_interval(last.test_sq[:seeds], before.test_sq[:seeds], confidence=confidence)
    moved = last.test - before.test
    doublings = math.log2((last.budget + more) / last.budget)
    factor = doublings / math.log2(last.budget / before.budget)
    room = 1.0 - last.test
    gain, least, most = (max(-last.test, min(room, factor * value)) for value in (moved, low, high))
    return MoreLabels(before.budget, last.budget, moved, low, high, more, gain, least, most)
