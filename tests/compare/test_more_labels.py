"""What more labels would add: bounded, with an interval, or not said."""

import pytest

from ptft.compare.gathered import gather
from ptft.compare.more_labels import MoreLabels, more_labels
from tests.support.comparisons import cell, choice_of


def found(at_64: float, at_128: float, more: int = 128, queries: int = 400) -> MoreLabels | None:
    cells = [cell("zero_shot", 0.1, budget=b, queries=queries) for b in (64, 128)]
    cells += [
        cell("full", at_64, budget=64, queries=queries),
        cell("full", at_128, budget=128, queries=queries),
    ]
    arms = gather(cells, confidence=0.95)
    chosen = [choice_of([a for a in arms if a.budget == b], retention=0.9) for b in (64, 128)]
    return more_labels(arms, chosen, more=more, confidence=0.95)


def test_a_line_over_the_logarithm_of_labels() -> None:
    line = found(0.5, 0.6)
    assert line is not None and line.tells
    assert (line.moved, line.gain) == pytest.approx((0.1, 0.1))  # 128 more double what there is
    assert line.low < 0.1 < line.high and line.low == pytest.approx(line.moved_low)
    twice = found(0.5, 0.6, more=384)
    assert twice is not None and twice.gain == pytest.approx(0.2)


def test_nothing_is_gained_beyond_all() -> None:
    line = found(0.5, 0.95, more=128 * 7)
    assert line is not None
    assert line.gain == line.low == line.high == pytest.approx(0.05)


def test_budgets_that_are_not_told_apart_say_nothing() -> None:
    line = found(0.50, 0.52, queries=50)
    assert line is not None and not line.tells
    assert line.moved_low <= 0.0 <= line.moved_high


def test_of_the_start_no_label_says_anything() -> None:
    assert found(0.05, 0.05) is None
