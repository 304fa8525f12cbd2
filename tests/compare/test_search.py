"""The trials of an arm: which values they try, and which of them are given up half-way."""

from typing import Any

import pytest

from ptft.compare.search import GivenUp, TrialSearch
from ptft.recipe.comparison import SearchRange

SPACE = {"optim.lr": SearchRange(low=1e-4, high=1e-2), "adapt.rank": [4, 8]}


def searched(curves: list[list[tuple[float, float]]]) -> list[str]:
    """What becomes of trials whose looks find (value, short of retention); the last is the end."""
    ends = []
    search = TrialSearch(SPACE, trials=len(curves), seed=3)
    for trial, curve in zip(search, curves, strict=True):
        try:
            for number, (value, short) in enumerate(curve[:-1]):
                trial.report(number, value, short_of=short)
        except GivenUp:
            search.give_up(trial)
            ends.append(f"given up at {number}")
            continue
        search.tell(trial, curve[-1][0], short_of=curve[-1][1])
        ends.append("told")
    return ends


def test_the_first_trial_is_the_arm_as_it_stands_and_the_rest_follow_from_the_seed() -> None:
    def tried(seed: int) -> list[dict[str, Any]]:
        search = TrialSearch(SPACE, trials=6, seed=seed)
        found = []
        for number, trial in enumerate(search):
            found.append(trial.values)
            search.tell(trial, number / 10, short_of=0.0)
        return found

    first, *others = tried(0)
    assert first == {}
    assert all(1e-4 <= o["optim.lr"] <= 1e-2 and o["adapt.rank"] in (4, 8) for o in others)
    assert tried(0) == [first, *others] and tried(1) != [first, *others]


def test_with_nothing_to_choose_there_is_one_trial() -> None:
    assert [trial.values for trial in TrialSearch({}, trials=5, seed=0)] == [{}]


@pytest.mark.parametrize(
    ("second", "expected"),
    [
        ([(0.4, 0), (0.5, 0), (0.6, 0)], "given up at 0"),
        ([(0.6, 0), (0.5, 0), (0.6, 0)], "told"),  # its best so far was better
        ([(0.5, 0), (0.6, 0), (0.9, 0)], "told"),  # as good is not worse
        ([(0.9, 0.01), (0.9, 0), (0.9, 0)], "given up at 0"),  # whatever it finds, it forgets
    ],
)
def test_a_trial_worse_than_the_one_before_is_given_up(
    second: list[tuple[float, float]], expected: str
) -> None:
    assert searched([[(0.5, 0), (0.6, 0), (0.7, 0)], second]) == ["told", expected]


def test_of_trials_that_retain_too_little_the_nearer_is_better() -> None:
    first = [(0.9, 0.2), (0.9, 0.2), (0.9, 0.1)]
    nearer, farther = [(0.1, 0.1)] * 3, [(0.95, 0.3)] * 3
    assert searched([first, nearer]) == ["told", "told"]
    assert searched([first, farther]) == ["told", "given up at 0"]


def test_the_median_of_what_finished_decides() -> None:
    curves = [[(value, 0.0)] * 3 for value in (0.2, 0.3, 0.4)]
    assert searched([*curves, [(0.25, 0.0)] * 3]) == ["told"] * 3 + ["given up at 0"]
    assert searched([*curves, [(0.31, 0.0)] * 3]) == ["told"] * 4
