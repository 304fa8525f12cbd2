"""The rule that recommends, on arms whose right answer is known."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ptft.compare.page import write_report
from ptft.compare.recommend import gather, pareto, recommend
from ptft.compare.results import Cell
from ptft.compare.stats import band, paired_interval
from ptft.recipe.load import load_comparison
from tests.support.comparisons import cell


def choose(*cells: Cell, retention: float = 0.98, margin: float = 0.01) -> str:
    arms = gather(cells, confidence=0.95)
    return recommend(arms, retention=retention, confidence=0.95, margin=margin).arm


def test_the_highest_arm_wins_where_the_difference_is_clear() -> None:
    assert choose(cell("zero_shot", 0.4), cell("full", 0.8, flops=9), cell("lora", 0.6)) == "full"


def test_the_cheapest_of_what_cannot_be_told_apart_wins() -> None:
    one = cell("full", 0.800, flops=9.0)
    other = cell("lora", 0.7975, flops=2.0)  # one query of 400
    assert choose(cell("zero_shot", 0.4), one, other) == "lora"


def test_of_two_that_cost_the_same_the_better_wins() -> None:
    one, other = cell("full", 0.7975, flops=9.0), cell("replay", 0.800, flops=9.0)
    assert choose(cell("zero_shot", 0.4), one, other) == "replay"


def test_what_is_lower_by_more_than_the_margin_is_not_as_good() -> None:
    one, other = cell("full", 0.80, flops=9.0, queries=50), cell("lora", 0.78, queries=50)
    assert choose(cell("zero_shot", 0.4, queries=50), one, other) == "full"
    assert choose(cell("zero_shot", 0.4, queries=50), one, other, margin=0.02) == "lora"


def test_what_forgets_more_than_allowed_is_no_candidate() -> None:
    forgets = cell("full", 0.9, kept=0.9)
    assert choose(cell("zero_shot", 0.4), forgets, cell("lora", 0.6)) == "lora"
    assert choose(cell("zero_shot", 0.4), forgets, cell("lora", 0.6), retention=0.9) == "full"


def test_not_to_fine_tune_can_win() -> None:
    assert choose(cell("zero_shot", 0.7), cell("full", 0.65), cell("lora", 0.7)) == "zero_shot"
    assert choose(cell("zero_shot", 0.7), cell("full", 0.9, kept=0.5)) == "zero_shot"


def test_regret_is_what_the_choice_costs_on_test() -> None:
    arms = gather(
        [cell("zero_shot", 0.4), cell("full", 0.8, flops=9.0), cell("lora", 0.7975)],
        confidence=0.95,
    )
    found = recommend(arms, retention=0.98, confidence=0.95, margin=0.01)
    assert (found.arm, found.best, found.test_best) == ("lora", "full", "full")
    assert found.regret == pytest.approx(0.0025)


def test_the_start_is_measured_at_every_budget_and_seeds_are_averaged() -> None:
    cells = [cell("full", value, seed=seed) for seed, value in enumerate((0.5, 0.7))]
    (arm,) = gather(cells, confidence=0.95)
    assert arm.val == pytest.approx(0.6)
    assert arm.val_sq.shape == (2, 400)


def test_the_front_holds_what_nothing_beats_on_both() -> None:
    arms = gather(
        [
            cell("zero_shot", 0.4, kept=1.0),
            cell("full", 0.9, kept=0.5),
            cell("worse", 0.8, kept=0.4),
            cell("wise", 0.7, kept=0.99),
        ],
        confidence=0.95,
    )
    assert [arm.name for arm in pareto(arms)] == ["zero_shot", "wise", "full"]


def test_a_band_covers_the_truth_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    covered = 0
    for trial in range(60):
        hits = (rng.random((1, 300)) < 0.3).astype(float)
        low, high = band(hits, confidence=0.9, seed=trial)
        covered += low <= 0.3 <= high
    assert 46 <= covered <= 60  # 54 expected; fewer than 46 has a chance of 0.2 %


def test_a_paired_interval_is_far_narrower_than_two_apart() -> None:
    rng = np.random.default_rng(1)
    hard = rng.random((1, 500))
    ours, theirs = (hard < 0.62).astype(float), (hard < 0.60).astype(float)
    low, high = paired_interval(ours, theirs, confidence=0.95)
    assert 0.0 < low < high < 0.05
    one_low, one_high = band(ours, confidence=0.95)
    assert high - low < 0.4 * (one_high - one_low)


def test_a_report_says_what_of_test_was_passed_over(tmp_path: Path) -> None:
    comparison = load_comparison("compare/scenes")
    cells = [
        cell("zero_shot", 0.4),
        replace(cell("full", 0.5), passed_over={"skipped": 2, "captions_too_long": 1200}),
    ]
    write_report(comparison, cells, tmp_path, left=0)
    line = (
        "Of test: 2 samples could not be read and are left out; 1,200 captions have more tokens "
        "than the model reads and are cut."
    )
    assert line in (tmp_path / "report.md").read_text(encoding="utf-8")
    write_report(comparison, [cell("zero_shot", 0.4), cell("full", 0.5)], tmp_path, left=0)
    assert "Of test" not in (tmp_path / "report.md").read_text(encoding="utf-8")
