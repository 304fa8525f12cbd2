"""The report says what was measured: intervals, seeds, classes, and nothing that was not."""

import re
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ptft.artifact import write_json
from ptft.compare.class_view import class_view
from ptft.compare.gathered import gather
from ptft.compare.page import choices_explained, choose, write_report
from ptft.compare.plots import cost_bars, label_curves, retention_plane
from ptft.compare.queries import QUERIES, ClassQueries
from ptft.compare.results import Cell
from ptft.compare.sentences import article, points
from ptft.data.sample import Sample, SampleSet
from ptft.recipe import Comparison
from ptft.recipe.load import load_comparison
from tests.support.comparisons import cell, choice_of
from tests.support.pages import Read

CLASSES = ["cat", "dog", "owl", "yak"]


def comparison(*, retain: bool = True, classify: bool = False) -> Comparison:
    values: dict[str, Any] = load_comparison("compare/scenes").model_dump(
        mode="json", by_alias=True
    )
    values["compare"] |= {"metric": None, "budgets": [64]}
    values["compare"]["arms"] = [{"kind": kind} for kind in ("zero_shot", "full", "scratch")]
    if not retain:
        values["compare"]["retain"] = []
    if classify:
        values |= {"objective": {"kind": "classify"}, "evaluate": [{"kind": "classify"}]}
    return Comparison.model_validate(values)


def report(wanted: Comparison, cells: list[Cell], folder: Path, **more: Any) -> str:
    write_report(wanted, cells, folder, left=0, **more)
    Read((folder / "report.html").read_text())  # well-formed, and asks for nothing
    return (folder / "report.md").read_text().replace("\\", "")


def test_the_headline_has_its_interval_and_its_seeds(tmp_path: Path) -> None:
    cells = [cell("zero_shot", 0.4, seed=seed) for seed in (0, 1)]
    cells += [cell("full", 0.5, seed=seed) for seed in (0, 1)]
    text = report(comparison(), cells, tmp_path)
    found = re.search(r"full, \+10\.0 points \(\+(\d+\.\d) to \+(\d+\.\d)\) over the start", text)
    assert found is not None and float(found[1]) < 10 < float(found[2])
    assert "95 % interval, 2 seeds." in text and "not told from none" not in text
    alone = report(comparison(), [cell("zero_shot", 0.4), cell("full", 0.4)], tmp_path)
    assert "With 64 labels: do not fine-tune. Of the arms that learn full is best on" in alone
    assert "validation: +0.0 points (-0.9 to +0.9) from the start; 95 % interval, 1 seed" in alone
    forgets = report(comparison(), [cell("zero_shot", 0.4), cell("full", 0.9, kept=0.5)], tmp_path)
    assert re.search(
        r"full is best .* from the start, and it probably keeps less than 98 %", forgets
    )
    bare = report(comparison(), [cell("zero_shot", 0.4)], tmp_path)
    assert "do not fine-tune.\n" in bare and "Of the arms that learn" not in bare
    barely = [cell("zero_shot", 0.40, queries=60), cell("full", 0.45, queries=60)]
    said = report(comparison(), barely, tmp_path)
    assert "1 seed, so that it holds for its labels alone. That is not told from none." in said


def test_nothing_is_said_of_retention_that_was_not_measured(tmp_path: Path) -> None:
    cells = [cell("zero_shot", 0.4), cell("full", 0.5)]
    kept = report(comparison(), cells, tmp_path)
    assert "keeps 100.0 % of what the start knew" in kept and "| retention |" in kept
    none = [replace(one, val_retained={}, test_retained={}) for one in cells]
    text = report(comparison(retain=False), none, tmp_path)
    assert "What it forgets was not measured" in text
    assert "retention |" not in text and "of the rest kept" not in text
    page = (tmp_path / "report.html").read_text()
    assert "starting model's figure" not in page and page.count('<svg viewBox="0 0 360 280"') == 1


def test_a_mix_is_named_in_words(tmp_path: Path) -> None:
    cells = [cell("zero_shot", 0.4), cell("full", 0.5)]
    cells += [replace(cell("full+wise", 0.6), chosen={"alpha": 0.5})]
    text = report(comparison(), cells, tmp_path)
    assert "With 64 labels: full mixed, +20.0 points" in text
    assert "full mixed, 0.5 of it" in text and "fine-tuning (full mixed)" in text
    assert "+wise" not in text + (tmp_path / "report.html").read_text()


@pytest.mark.parametrize(
    "gains, said",
    [
        ((0.2, 0.2), ("without labels; below 64 nothing was measured", "from 64 labels on")),
        ((0.001, 0.2), ("up to 64 labels: no gain", "from 256 labels on: the gain's interval")),
        ((0.2, 0.001), ("at 256 labels: no gain was told", "at 64 labels: the gain's interval")),
        ((0.001, 0.001), ("up to 256 labels: no gain", "that was not measured")),
    ],
)
def test_a_use_is_claimed_where_a_gain_was_told(
    gains: tuple[float, float], said: tuple[str, str]
) -> None:
    cells = [
        made
        for budget, gain in zip((64, 256), gains, strict=True)
        for made in (
            cell("zero_shot", 0.4, budget=budget, queries=1000),
            scattered("full", 0.4 + gain, budget=budget),
        )
    ]
    wanted = comparison()
    wanted = wanted.model_copy(
        update={"compare": wanted.compare.model_copy(update={"budgets": [64, 256]})}
    )
    found = choose(wanted, cells)
    row = article(wanted, found.arms, found.chosen)[-1]
    assert row[0] == "use case" and said[0] in row[1] and said[1] in row[2]


def scattered(arm: str, val: float, *, budget: int) -> Cell:
    """As ``cell``, but that an arm is right elsewhere than others, so that a gain has an error."""
    made = cell(arm, val, budget=budget, queries=1000)
    return replace(made, test_hits=made.test_hits[::-1])


def test_validation_figures_that_decided_are_told(tmp_path: Path) -> None:
    cells = [cell("zero_shot", 0.4), cell("full", 0.5), cell("forgets", 0.9, kept=0.5)]
    wanted = comparison()
    text = report(wanted, cells, tmp_path)
    rows = [line for line in text.splitlines() if line.startswith("| 64 |")]
    assert rows[0].startswith("| 64 | full | 50.0 | 100.0 | 50.0 (")
    found = choose(wanted, cells)
    forgets, full = (f"{100 * found.chosen[0].figures[name]:.1f}" for name in ("forgets", "full"))
    assert abs(float(forgets) - 90.0) < 1.0 and abs(float(full) - 50.0) < 1.0
    told = choices_explained(wanted, found).replace("\\", "")
    assert f"| forgets | 90.0 | {forgets} | 50.0 |" in told and "retains less than 98 %" in told
    assert f"| full | 50.0 | {full} | 100.0 | 100 % | recommended |" in told


def test_what_is_far_below_stands_at_the_edge() -> None:
    cells = [
        cell("zero_shot", 0.5),
        cell("full", 0.7),
        replace(cell("full+wise", 0.68), chosen={"alpha": 0.5}),
        cell("scratch", 0.05, kept=0.01),
    ]
    arms = gather(cells, confidence=0.95)
    choice = choice_of(arms)
    plane = retention_plane(arms, choice, 0.98, "top1")
    assert plane.x.low >= 80 and plane.y.low >= 30
    assert "scratch (5 %, keeps 1 %)" in plane.note
    (edge,) = [mark for mark in plane.marks if mark.name.startswith("scratch")]
    assert (edge.dots[0].x, edge.dots[0].y) == (plane.x.low, plane.y.low)
    curves = label_curves(arms, [choice], "top1", "labels of each class")
    assert curves.x.label == "labels of each class" and curves.note.endswith("scratch")
    styles = {mark.name: (mark.dashed, mark.hollow) for mark in curves.marks}
    assert styles["full"] == (False, False) and styles["full mixed"] == (True, True)
    assert "scratch" not in styles


def test_what_was_not_measured_has_no_bar() -> None:
    """The start is not trained, so that its memory is not none."""
    measured = cell("full", 0.7)
    measured = replace(measured, costs=replace(measured.costs, peak_bytes=2_000_000))
    arms = gather([cell("zero_shot", 0.5), measured], confidence=0.95)
    drawn = {bars.title: [row[0] for row in bars.rows] for bars in cost_bars(arms)}
    assert drawn["MB to store"] == ["full", "zero_shot"]
    assert drawn["peak MB of training"] == ["full"]
    assert "peak MB of training" not in {bars.title for bars in cost_bars(arms[1:])}


def test_nothing_has_no_sign() -> None:
    assert points((-0.0004, -0.0101, 0.0)) == "+0.0 points (-1.0 to +0.0)"


class Drawn(SampleSet):
    """Grey pictures."""

    def __init__(self, count: int) -> None:
        self._count = count

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> Sample:
        return Sample(self.name(index), Image.new("RGB", (40, 30), (index,) * 3), (), label=None)

    def name(self, index: int) -> str:
        return f"{index}.png"

    def captions(self, index: int) -> tuple[str, ...]:
        return ()


@pytest.fixture
def classed() -> tuple[list[Cell], ClassQueries]:
    """40 queries of three of four classes; tuning wins the dogs and loses owls to cats."""
    labels = [0] * 20 + [1] * 12 + [2] * 8
    start = [0] * 20 + [0] * 12 + [2] * 8
    tuned = [0] * 20 + [1] * 12 + [0] * 6 + [2] * 2

    def one(arm: str, said: list[int], seed: int) -> Cell:
        hits = "".join(str(int(a == b)) for a, b in zip(said, labels, strict=True))
        base = cell(arm, hits.count("1") / 40, seed=seed, queries=40)
        return replace(base, test_hits=hits, test=hits.count("1") / 40, test_said=said)

    cells = [one("zero_shot", start, seed) for seed in (0, 1)]
    cells += [one("full", tuned, seed) for seed in (0, 1)]
    names = [f"{place}.png" for place in range(40)]
    return cells, ClassQueries(CLASSES, labels, names, list(range(40)))


def test_the_view_by_class_says_what_is_won_and_lost(
    classed: tuple[list[Cell], ClassQueries], tmp_path: Path
) -> None:
    cells, queries = classed
    arms = gather(cells, confidence=0.95)
    choice = choice_of(arms)
    view = class_view(cells, choice, queries, Drawn(40))
    assert view is not None and view.arm == "full"
    assert view.said == [
        "full: 1 classes better than with the start, 1 worse (dog +100, owl -75 points)."
    ]
    assert view.table[1:] == [
        ["dog", "12", "0", "100"],
        ["owl", "8", "100", "25"],
        ["cat", "20", "100", "100"],
    ]
    assert (view.lost_count, [one.name for one in view.lost]) == (
        6,
        [f"{place}.png" for place in range(32, 38)],
    )
    assert view.lost[0].image.startswith("data:image/jpeg")
    assert (view.pairs[0].shown, view.pairs[0].said) == ("owl", "cat")
    assert (view.pairs[0].count, view.pairs[0].total) == (12, 16)  # both seeds
    write_json(tmp_path / QUERIES, asdict(queries))
    text = report(comparison(classify=True), cells, tmp_path, test=Drawn(40))
    assert "| owl | cat | 12 of 16 |" in text
    page = (tmp_path / "report.html").read_text()
    assert page.count('<img src="data:image/jpeg') == 6
    report(comparison(classify=True), cells, tmp_path)  # again, without the data
    assert "<img" not in (tmp_path / "report.html").read_text()


def test_a_view_has_the_share_of_each_arm_in_mean_over_seeds(
    classed: tuple[list[Cell], ClassQueries],
) -> None:
    cells, queries = classed
    better = replace(cells[3], test_said=queries.labels)
    view = class_view(
        [*cells[:3], better],
        choice_of(gather([*cells[:3], better], confidence=0.95)),
        queries,
        None,
    )
    assert view is not None and view.lost == [] and view.lost_count == 6
    shares = {row[0]: row[3] for row in view.table[1:]}
    assert shares == {"dog": "100", "owl": f"{100 * np.mean([0.25, 1.0]):.0f}", "cat": "100"}
