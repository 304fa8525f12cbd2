"""What is believed of the share that an arm keeps, on answers whose right reading is known."""

import numpy as np
import pytest

from ptft.compare.kept import KeptSet, kept_belief

PAIRS = {"before": KeptSet(pairs=True)}


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


def test_luck_is_of_val_alone_and_makes_no_arm_better_than_the_start() -> None:
    rows = [{"before": np.repeat([[1.0, 0.0]], [n, 200 - n], axis=1)} for n in (100, 90, 98, 110)]
    sets = {"before": KeptSet(luck=0.95)}
    on_val = kept_belief(rows, first=0, sets=sets, of_val=True).mean_a
    assert on_val.tolist() == pytest.approx([1.0, 0.9 / 0.95, 1.0, 1.1])
    on_test = kept_belief(rows, first=0, sets=sets).mean_a
    assert on_test.tolist() == pytest.approx([1.0, 0.9, 0.98, 1.1])


def test_of_a_start_that_finds_nothing_nothing_is_lost() -> None:
    rows = [{"before": np.zeros((1, 200))}, {"before": np.ones((1, 200))}]
    belief = kept_belief(rows, first=0, sets=PAIRS, of_val=True)
    assert belief.mean_a.tolist() == [1.0, 1.0]
