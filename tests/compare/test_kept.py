"""What is believed of the share that an arm keeps, on answers whose right reading is known."""

import numpy as np
import pytest
from numpy.typing import NDArray

from ptft.compare.kept import KeptSet, kept_belief, with_candidates
from ptft.compare.selected import candidates_told

PAIRS = {"before": KeptSet(k=5)}


def found(strength_q: NDArray[np.float64], candidates: int, k: int, seed: int) -> float:
    """Recall of right answers that score so much, among drawn wrong ones."""
    wrong_qn = np.random.default_rng(seed).standard_normal((len(strength_q), candidates - 1))
    return float(((wrong_qn > strength_q[:, None]).sum(axis=1) < k).mean())


@pytest.mark.parametrize("strength", [0.8, 1.8, 3.0])
@pytest.mark.parametrize(("few", "many"), [(100, 400), (400, 100)])
def test_recall_with_other_candidates_is_what_a_drawn_retrieval_has(
    strength: float, few: int, many: int
) -> None:
    strength_q = strength + np.random.default_rng(7).standard_normal(4000)
    asked, wanted = (found(strength_q, n, 5, seed) for seed, n in enumerate((few, many)))
    answers_aq = np.zeros((1, 4000))
    answers_aq[0, : round(4000 * asked)] = 1.0
    moved_aq = with_candidates(answers_aq, 5, 2 * few, 2 * many)
    assert abs(wanted - asked) > 0.02
    assert moved_aq.mean() == pytest.approx(wanted, abs=0.02)
    spread = with_candidates(answers_aq + 0.01, 5, 2 * few, 2 * many).mean() - moved_aq.mean()
    slope = moved_aq.std() / answers_aq.std()  # an error moves as the curve does
    assert slope == pytest.approx(spread / 0.01, rel=0.15)


def test_what_is_asked_of_as_many_stays_as_it_is() -> None:
    answers_aq = np.random.default_rng(0).integers(0, 2, (3, 40)).astype(float)
    assert with_candidates(answers_aq, 5, 40, 40) is answers_aq
    assert with_candidates(answers_aq, 10, 20, 40) is answers_aq  # half of all count as found


def test_both_ways_of_a_pair_are_one_question() -> None:
    rng = np.random.default_rng(0)
    start_q, arm_q = (rng.random((1, 200)) < share for share in (0.8, 0.7))
    rows = [{"before": np.hstack([row, row]).astype(float)} for row in (start_q, arm_q)]
    once = kept_belief([{"before": row["before"][:, :200]} for row in rows], first=0)
    apart = kept_belief(rows, first=0)
    pairs = kept_belief(rows, first=0, sets=PAIRS)
    assert pairs.mean_a == pytest.approx(once.mean_a)
    assert pairs.deviation_a[1] == pytest.approx(once.deviation_a[1])
    assert apart.deviation_a[1] == pytest.approx(once.deviation_a[1] / np.sqrt(2), rel=0.01)


def test_more_candidates_on_test_lower_what_a_weaker_arm_keeps() -> None:
    start, arm = (np.repeat([[1.0, 0.0]], [right, 200 - right], axis=1) for right in (196, 190))
    rows = [{"before": start}, {"before": arm}]
    here = kept_belief(rows, first=0, sets=PAIRS, test={"before": 200})
    there = kept_belief(rows, first=0, sets=PAIRS, test={"before": 800})
    assert here.mean_a.tolist() == pytest.approx([1.0, 190 / 196])
    assert there.mean_a[0] == 1.0
    assert there.mean_a[1] < here.mean_a[1] - 0.02
    assert there.deviation_a[1] > here.deviation_a[1]


def test_luck_is_of_val_alone_and_makes_no_arm_better_than_the_start() -> None:
    rows = [{"before": np.repeat([[1.0, 0.0]], [n, 200 - n], axis=1)} for n in (100, 90, 98, 110)]
    sets = {"before": KeptSet(luck=0.95)}
    on_val = kept_belief(rows, first=0, sets=sets, test={"before": 400}).mean_a
    assert on_val.tolist() == pytest.approx([1.0, 0.9 / 0.95, 1.0, 1.1])
    on_test = kept_belief(rows, first=0, sets=sets).mean_a
    assert on_test.tolist() == pytest.approx([1.0, 0.9, 0.98, 1.1])


def test_of_a_start_that_finds_nothing_nothing_is_lost() -> None:
    rows = [{"before": np.zeros((1, 200))}, {"before": np.ones((1, 200))}]
    belief = kept_belief(rows, first=0, sets=PAIRS, test={"before": 800})
    assert belief.mean_a.tolist() == [1.0, 1.0]


def test_figures_that_count_as_among_others_are_told() -> None:
    sets = {"before": KeptSet(k=5), "classes": KeptSet()}
    told = candidates_told(sets, {"before": (1000, 2500), "classes": (10, 20)})
    assert told is not None
    assert told.endswith("as among those of test: before 1,000 and 2,500.")
    assert candidates_told(sets, {"before": (50, 50), "classes": (10, 20)}) is None
