"""Arms that learn from pictures without labels, and what these are worth in labels."""

import json
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ptft.compare import ComparisonOutcome, compare
from ptft.compare.gathered import gather
from ptft.compare.keys import Keys, base_values
from ptft.compare.recommended import FIRST, FIRST_RUN, RECOMMENDED, write_recommended
from ptft.compare.results import Cells
from ptft.compare.sentences import worth_told
from ptft.compare.task import Task
from ptft.compare.unlabelled import best_base, measured_recipes, task_recipe
from ptft.compare.unlabelled_worth import Worth, unlabelled_worth
from ptft.errors import DataError, RecipeError
from ptft.model import save_model
from ptft.recipe import Comparison, dump_recipe, load_recipe
from ptft.recipe.load import load_comparison
from ptft.speech import SILENT
from tests.support.comparisons import cell, choice_of, measured
from tests.support.tiny import build, towers_section
from tests.support.warm import Child, Warm

ARMS = ("zero_shot", "probe", "full", "self_train", "adapt_unlabelled")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Red and green pictures with labels, eight without, and an untrained model."""
    made = tmp_path_factory.mktemp("classes")
    rng = np.random.default_rng(0)
    for split, count in (("train", 4), ("val", 4), ("test", 6), ("more", 4)):
        for channel, name in enumerate(("red", "green")):
            (made / split / name).mkdir(parents=True)
            for number in range(count):
                pixels = rng.integers(0, 120, (32, 32, 3), np.uint8)
                pixels[..., channel] += 130
                Image.fromarray(pixels).save(made / split / name / f"{number}.png")
    save_model(build(towers_section()), made / "base")
    return made


def wanted(folder: Path, run: Path, *, more: str | None = "more", **section: Any) -> Comparison:
    data: dict[str, Any] = {"kind": "folder"}
    data |= {split: str(folder / split) for split in ("train", "val", "test")}
    if more is not None:
        data["unlabelled"] = {"kind": "folder", "train": str(folder / more)}
    values: dict[str, Any] = {
        "name": "colours",
        "init": {"from": str(folder / "base")},
        "data": data,
        "objective": {"kind": "classify"},
        "optim": {"samples_seen": 32, "global_batch": 8, "lr": 1e-3, "precision": "fp32"},
        "evaluate": [{"kind": "classify"}],
        "run": {"device": "cpu", "dir": str(run)},
        "compare": {
            "arms": [{"kind": kind} for kind in ARMS],
            "budgets": [1, 2],
            "seeds": 2,
            "trials": 1,
            "samples_per_label": 8,
            "wise": [],
            "jobs": 2,
            "unlabelled_passes": 2,
            **section,
        },
    }
    values["compare"] = {key: one for key, one in values["compare"].items() if one is not None}
    path = folder / "comparison.yaml"
    path.write_text(json.dumps(values))
    return load_comparison(path)


@pytest.fixture(scope="module")
def alone(
    folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Comparison, ComparisonOutcome]:
    """A comparison by one process, which does first what others build on, whatever the order."""
    arms = [{"kind": kind} for kind in ("adapt_unlabelled", "self_train", "probe", "zero_shot")]
    run = tmp_path_factory.mktemp("alone") / "run"
    asked = wanted(folder, run, arms=arms, budgets=[2], seeds=1, jobs=1)
    return asked, compare(asked, log=SILENT)


def test_a_comparison_says_what_pictures_without_labels_are_worth(
    alone: tuple[Comparison, ComparisonOutcome],
) -> None:
    asked, outcome = alone
    run = outcome.folder
    assert outcome.left == 0
    cells = {one.arm: one for one in outcome.cells}
    assert len(cells) == len(asked.compare.arms)
    for kind in ("self_train", "adapt_unlabelled"):
        assert (cells[kind].base, cells[kind].unlabelled) == ("probe", 8)
        paid = cells[kind].costs.cpu_seconds
        assert paid > cells["probe"].costs.cpu_seconds  # what comes before counts too
        assert cells[kind].costs.flops > cells["probe"].costs.flops
    assert (cells["probe"].base, cells["probe"].unlabelled) == ("", 0)
    report = (run / "report.md").read_text()
    assert "8 pictures without labels, at 2 labels of each class" in report
    found = json.loads((run / "results.json").read_text())
    assert [one["over"] for one in found["unlabelled"]] == ["probe"]
    for number, kind in enumerate(("adapt_unlabelled", "self_train")):
        (path,) = (run / "cells").glob(f"{kind}_2_0.*.json")
        path.unlink()
        Task(asked, asked.compare.arms[number], 2, run).run()
        again = Cells(run, asked).read(kind, 2, 0)
        assert again is not None and again.test_hits == cells[kind].test_hits


def test_workers_share_what_waits_for_what_others_do(
    alone: tuple[Comparison, ComparisonOutcome], tmp_path: Path
) -> None:
    """Each has a disk of its own, so that a teacher or an adapted start of one that was killed is
    made again; two others finish it, either of which may wait for what the other does.
    """
    mirror = tmp_path / "mirror"
    places = {"dir": str(tmp_path / "last"), "mirror": str(mirror)}
    asked = alone[0].model_copy(update={"run": alone[0].run.model_copy(update=places)})
    recipe = tmp_path / "comparison.yaml"
    recipe.write_text(dump_recipe(asked))
    with Warm(tmp_path) as warm:

        def worker(name: str) -> Child:
            return warm.ptft("compare", recipe, f"run.dir={tmp_path / name}", "--worker")

        killed = worker("killed")
        waits = ("self_train", "adapt_unlabelled")
        assert killed.wait_until(lambda: [p for k in waits for p in mirror.glob(f"claims/{k}*")])
        killed.kill()
        assert killed.wait() == -signal.SIGKILL
        assert list(mirror.glob("cells/probe*")), "what they build on was done before"
        beside = worker("beside")
        outcome = compare(asked, worker=True, log=SILENT)
        assert beside.wait() == 0, beside.err.read_text()
    assert outcome.left == 0
    for place in (outcome.folder, mirror, tmp_path / "beside"):
        assert measured(place) == measured(alone[1].folder), place


def test_the_base_is_what_validates_best_of_what_retains_enough(
    folder: Path, tmp_path: Path
) -> None:
    asked = wanted(folder, tmp_path)
    cells = [cell(name, val, budget=2) for name, val in (("probe", 0.5), ("full", 0.6))]
    cells += [cell("self_train", 0.9, budget=2), cell("probe", 0.9, budget=1)]
    assert best_base(asked, cells, 2).arm.label == "full"
    item = {"kind": "retrieval", "data": {"kind": "scenes"}}
    kept = wanted(folder, tmp_path, retain=[item], retention=0.95)
    forgets = [
        replace(one, val_retained={"a": 0.5 if one.arm == "full" else 0.96}) for one in cells
    ]
    assert best_base(kept, forgets, 2).arm.label == "probe"
    more = [replace(one, own=0.4 if one.arm == "full" else 0.5) for one in cells]
    assert best_base(asked, more, 2).arm.label == "probe"  # by what the budget allows to choose by


def test_labelled_cells_know_nothing_of_them(folder: Path, tmp_path: Path) -> None:
    """So that they can be added to a finished comparison; theirs depend on what they build on."""
    with_them = wanted(folder, tmp_path)
    without = wanted(folder, tmp_path, more=None, arms=[{"kind": kind} for kind in ARMS[:3]])
    assert base_values(with_them) == base_values(without)
    full = with_them.compare.arms[2]
    assert Keys(with_them).of(full, 1) == Keys(without).of(full, 1)
    fewer = wanted(folder, tmp_path, arms=[{"kind": kind} for kind in ARMS if kind != "probe"])
    longer = wanted(folder, tmp_path, unlabelled_passes=3)
    elsewhere = wanted(folder, tmp_path, more="train")
    for number, kind in enumerate(ARMS[3:], 3):
        own = Keys(with_them).of(with_them.compare.arms[number], 1).learned
        assert Keys(fewer).of(with_them.compare.arms[number], 1).learned != own
        assert Keys(elsewhere).of(with_them.compare.arms[number], 1).learned != own
        same = Keys(longer).of(with_them.compare.arms[number], 1).learned == own
        assert same == (kind == "self_train")


def test_pictures_that_are_measured_on_are_refused(folder: Path, tmp_path: Path) -> None:
    for split in ("val", "test"):
        with pytest.raises(DataError, match=f"data.unlabelled.train: shares .* target's {split}"):
            compare(wanted(folder, tmp_path / split, more=split), log=SILENT)
        assert not list((tmp_path / split / "cells").glob("*"))


@pytest.mark.parametrize(
    "change, said",
    [
        ({"arms": [{"kind": "full"}]}, "data.unlabelled: no arm reads it"),
        ({"more": None}, "compare.arms.self_train: data.unlabelled is missing"),
        ({"arms": [{"kind": "tip_adapter"}, {"kind": "self_train"}]}, "which it builds on"),
        ({"arms": [{"kind": "full"}, {"kind": "selftrain"}]}, "did you mean 'self_train'"),
    ],
)
def test_arms_that_lack_something_are_refused(
    change: dict[str, Any], said: str, folder: Path, tmp_path: Path
) -> None:
    with pytest.raises(RecipeError, match=said):
        wanted(folder, tmp_path, **change)


def test_two_arms_join_where_none_are_named(folder: Path, tmp_path: Path) -> None:
    kinds = [arm.kind for arm in wanted(folder, tmp_path, arms=None).compare.arms]
    assert kinds[-2:] == ["self_train", "adapt_unlabelled"] and "full" in kinds
    plain = [arm.kind for arm in wanted(folder, tmp_path, more=None, arms=None).compare.arms]
    assert plain == kinds[:-2]


def worths(at: dict[str, dict[int, float]], *, queries: int = 1000) -> list[Worth]:
    cells = []
    for name, figures in at.items():
        for budget, figure in figures.items():
            made = cell(name, figure, budget=budget, queries=queries)
            cells.append(replace(made, unlabelled=500 if name == "self_train" else 0))
    return unlabelled_worth(gather(cells, confidence=0.95), confidence=0.95)


def test_a_gain_is_counted_on_the_curve_of_labels() -> None:
    lines = worths({"full": {2: 0.3, 4: 0.4, 8: 0.5}, "self_train": {2: 0.4, 4: 0.4, 8: 0.6}})
    first, second, third = lines
    assert (first.over, first.budget, first.pictures) == ("full", 2, 500)
    assert first.helps and first.gain == pytest.approx(0.1)
    assert first.labels == pytest.approx(2 * 2)  # 2 labels more for 500 pictures
    assert first.labels_low is not None and first.labels_high is not None
    assert 0 < first.labels_low < first.labels < first.labels_high
    assert not second.helps and second.gain == 0.0
    assert third.helps and third.labels is None  # the curve never gets there


def test_the_report_says_where_they_do_not_help(folder: Path, tmp_path: Path) -> None:
    asked = wanted(folder, tmp_path)
    at = {"full": {2: 0.3, 4: 0.5}, "self_train": {2: 0.2, 4: 0.5}}
    cells = [
        replace(cell(name, figure, budget=b, queries=1000), unlabelled=9 * (name != "full"))
        for name, figures in at.items()
        for b, figure in figures.items()
    ]
    harm, none = worth_told(asked, gather(cells, confidence=0.95))
    assert harm.endswith("they did harm.")
    assert none.endswith("that they help is not told from none.")


@pytest.mark.parametrize("kind", ["self_train", "adapt_unlabelled"])
def test_the_winner_is_written_with_what_comes_before_it(
    kind: str, folder: Path, tmp_path: Path
) -> None:
    asked = wanted(folder, tmp_path)
    cells = [cell("zero_shot", 0.5, budget=2), cell("full", 0.6, budget=2)]
    cells += [replace(cell(kind, 0.9, budget=2), kind=kind, base="full", unlabelled=8)]
    arms = gather(cells, confidence=0.95)
    write_recommended(asked, arms, choice_of(arms, retention=0.9), tmp_path)
    recipe, first = (load_recipe(tmp_path / name) for name in (RECOMMENDED, FIRST))
    assert f"run.dir={FIRST_RUN}" in (tmp_path / RECOMMENDED).read_text()
    assert recipe.data.train == first.data.train or kind != "self_train"
    if kind == "self_train":
        assert recipe.self_train is not None and recipe.self_train.from_ == FIRST_RUN
        assert first.self_train is None and first.objective == recipe.objective
    else:
        assert recipe.init is not None and recipe.init.from_ == FIRST_RUN
        assert first.objective.kind == "self_supervised"
        assert first.data.train == str(folder / "more")


def test_memory_is_measured_before_anything_is_trained(folder: Path, tmp_path: Path) -> None:
    """What a teacher or an adapting start freed would hide it; and a start that adapts counts."""
    asked = wanted(folder, tmp_path / "run", budgets=[2], seeds=1)
    bases = (1, 2)
    for number in bases:
        Task(asked, asked.compare.arms[number], 2, tmp_path / "run").run()
    for number, learns in ((3, ["classify"]), (4, ["classify", "self_supervised"])):
        task = Task(asked, asked.compare.arms[number], 2, tmp_path / "run")
        recipes = measured_recipes(task)
        assert [one.objective.kind for one in recipes] == learns
        assert all(one.self_train is None for one in recipes)
        assert recipes[0].optim == task_recipe(task, 0, {}).optim
