"""The rule that recommends, on arms whose right answer is known."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ptft.compare.gathered import gather
from ptft.compare.page import write_report
from ptft.compare.recommend import pareto, recommend
from ptft.compare.results import Cell
from ptft.compare.stats import band, paired_interval
from ptft.recipe.load import load_comparison
from tests.support.comparisons import cell

ASKED: dict[str, Any] = {
    "retention": 0.98,
    "probability": 0.5,
    "confidence": 0.95,
    "margin": 0.01,
}


def choose(*cells: Cell, budget: int = 64, **asked: float) -> str:
    arms = gather(cells, confidence=0.95)
    found = {one.budget: one.arm for one in recommend(arms, **{**ASKED, **asked})}
    return found[budget]


def test_the_highest_arm_wins_where_the_difference_is_clear() -> None:
    assert choose(cell("zero_shot", 0.4), cell("full", 0.8, flops=9), cell("lora", 0.6)) == "full"


def test_of_equal_arms_the_one_that_is_better_elsewhere_wins_and_not_the_cheapest() -> None:
    few = cell("lora", 0.5, queries=20, flops=9)
    lora = replace(few, val_hits=few.val_hits[::-1])  # right where the other is wrong
    here = [cell("zero_shot", 0.4, queries=20), cell("full", 0.5, queries=20), lora]
    there = [cell("zero_shot", 0.4, budget=32), cell("lora", 0.7, budget=32)]
    assert choose(*here) == "full"  # nothing is known but what it costs
    assert choose(*here, *there, cell("full", 0.6, budget=32)) == "lora"
    assert choose(*here, *there, cell("full", 0.75, budget=32)) == "full"
    elsewhere = [cell("zero_shot", 0.4, budget=32), cell("full", 0.3, budget=32)]
    assert choose(*here, *elsewhere) == "lora"  # which is nowhere else


def test_what_is_told_here_stands_against_what_was_elsewhere() -> None:
    here = [cell("zero_shot", 0.4), cell("full", 0.80), cell("lora", 0.78)]
    there = [cell("zero_shot", 0.4, budget=8), cell("full", 0.5, budget=8)]
    assert choose(*here, *there, cell("lora", 0.7, budget=8)) == "full"


def test_as_good_is_what_validation_cannot_tell_and_is_lower_by_at_most_the_margin() -> None:
    few = {"queries": 50}
    cells = [cell("zero_shot", 0.4, **few), cell("full", 0.80, **few), cell("lora", 0.78, **few)]
    arms = gather(cells, confidence=0.95)
    [found] = recommend(arms, **ASKED)
    assert (found.arm, found.equals) == ("full", ("full",))
    [found] = recommend(arms, **{**ASKED, "margin": 0.02})
    assert (found.arm, found.equals) == ("full", ("full", "lora"))


def test_what_forgets_more_than_allowed_is_no_candidate() -> None:
    forgets = cell("full", 0.9, kept=0.9)
    assert choose(cell("zero_shot", 0.4), forgets, cell("lora", 0.6)) == "lora"
    assert choose(cell("zero_shot", 0.4), forgets, cell("lora", 0.6), retention=0.9) == "full"


def test_not_to_fine_tune_can_win() -> None:
    assert choose(cell("zero_shot", 0.7), cell("full", 0.65), cell("lora", 0.7)) == "zero_shot"
    assert choose(cell("zero_shot", 0.7), cell("full", 0.9, kept=0.5)) == "zero_shot"


def test_regret_is_what_the_choice_costs_on_test() -> None:
    arms = gather(
        [cell("zero_shot", 0.4), cell("full", 0.68, test=0.72), cell("lora", 0.7)],
        confidence=0.95,
    )
    [found] = recommend(arms, **ASKED)
    assert (found.arm, found.test_best) == ("lora", "full")
    assert found.regret == pytest.approx(0.02)


def test_what_is_said_of_the_choice_comes_true_about_as_often_as_it_says() -> None:
    """Six arms whose figures and retention are known, drawn again and again."""
    rng = np.random.default_rng(0)
    said, came = [], []
    inside, held, promised = 0, 0, 0.0
    trials = 30
    for _ in range(trials):
        truth = {"zero_shot": 0.5, **{f"arm{i}": rng.uniform(0.5, 0.65) for i in range(5)}}
        keeps = {name: min(1.0, rng.normal(0.97, 0.02)) for name in truth} | {"zero_shot": 1.0}
        cells = [drawn(rng, name, truth[name], keeps[name]) for name in truth]
        [found] = recommend(gather(cells, confidence=0.95), **ASKED)
        best = max(truth[n] for n in truth if n == "zero_shot" or keeps[n] >= 0.98)
        said.append(found.expected_regret)
        came.append(max(0.0, best - truth[found.arm]))
        inside += found.regret_low <= found.regret <= found.regret_high
        held += keeps[found.arm] >= 0.98
        promised += found.holds
    assert 0.9 * trials <= inside
    assert np.mean(came) == pytest.approx(np.mean(said), abs=0.01)
    assert held / trials == pytest.approx(promised / trials, abs=0.15)


def drawn(rng: np.random.Generator, name: str, figure: float, keeps: float) -> Cell:
    """A cell whose answers chance draws; retained ones are lost here and there."""

    def row(share: float, queries: int) -> str:
        return "".join("1" if right else "0" for right in rng.random(queries) < share)

    plain = cell(name, 0.5)
    val, test = row(figure, 100), row(figure, 300)
    return replace(
        plain,
        val_hits=val,
        test_hits=test,
        val=val.count("1") / 100,
        test=test.count("1") / 300,
        val_kept={"before": row(keeps, 200)},
        test_kept={"before": (kept := row(keeps, 400))},
        test_retained={"before": kept.count("1") / 400},
    )


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


def test_draws_by_blocks_are_those_of_one_call(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(4)
    ours, theirs = (rng.random((3, 70)) < share for share in (0.6, 0.5))
    whole = paired_interval(ours.astype(float), theirs.astype(float), confidence=0.9, seed=3)
    for counts in (1, 700, 2001 * 70):
        monkeypatch.setattr("ptft.compare.stats.COUNTS_AT_ONCE", counts)
        found = paired_interval(ours.astype(float), theirs.astype(float), confidence=0.9, seed=3)
        assert found == whole


def test_queries_that_are_all_alike_prove_nothing_for_certain() -> None:
    right, start = np.ones((2, 34)), np.zeros((2, 34))
    low, high = band(right, confidence=0.95)
    assert high == 1.0 and low == pytest.approx(0.8972, abs=1e-4)  # 0.025 ** (1 / 34)
    assert band(start, confidence=0.95) == pytest.approx((0.0, 1 - low))
    assert paired_interval(right, right, confidence=0.95) == pytest.approx((low - 1, 1 - low))
    assert paired_interval(right, start, confidence=0.95)[0] == pytest.approx(low)
