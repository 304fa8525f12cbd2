"""A comparison of detectors: which way to find things, at budgets of pictures."""

import json
import shutil
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ptft.compare import ComparisonOutcome, compare
from ptft.compare.again import explain_again, summarise
from ptft.compare.boxes import has_things
from ptft.compare.gathered import gather
from ptft.compare.recommended import recommended_recipe
from ptft.compare.start import starting_model
from ptft.compare.target import Target
from ptft.data import open_split
from ptft.data.sample import Part
from ptft.errors import RecipeError
from ptft.evaluate.detect import detect_figures, detect_split
from ptft.model import load_model, prepare_detector
from ptft.model.average import interpolate
from ptft.recipe import (
    Comparison,
    DetectEvaluation,
    DetectObjective,
    ScenesData,
    dump_recipe,
)
from ptft.recipe.load import load_comparison
from ptft.speech import SILENT
from tests.support.comparisons import comparison, measured
from tests.support.warm import Warm


def boxes_comparison(folder: Path, *, evaluate: Any = None, **section: Any) -> Comparison:
    """The comparison of the other tests, of boxes in its scenes."""
    values = comparison(folder, **{"trials": 1, **section}).model_dump(mode="json", by_alias=True)
    values["objective"] = {
        "kind": "detect",
        "templates": ["a {}"],
        "maps": 2,
        "width": 16,
        "image_size": 64,
    }
    values["data"] |= {"size": 64}
    values["compare"]["metric"] = None
    values["evaluate"] = evaluate or [{"kind": "detect", "name": "boxes"}]
    path = folder / "boxes.yaml"
    path.write_text(json.dumps(values))
    return load_comparison(path)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Comparison, ComparisonOutcome]:
    folder = tmp_path_factory.mktemp("boxes")
    arms = ["zero_shot", "scratch", "probe", "full", "lora"]
    wanted = boxes_comparison(folder, arms=[{"kind": kind} for kind in arms])
    return wanted, compare(wanted, log=SILENT)


def test_every_arm_is_measured_by_its_precision_on_test(
    whole: tuple[Comparison, ComparisonOutcome],
) -> None:
    wanted, outcome = whole
    assert outcome.left == 0
    found = {(cell.arm, cell.seed): cell for cell in outcome.cells}
    mixes = ("probe+wise", "full+wise", "lora+wise")
    assert {arm for arm, _ in found} == {arm.label for arm in wanted.compare.arms} | set(mixes)
    for cell in found.values():
        assert len(cell.test_hits) == 16 and len(cell.val_hits) == len(cell.val_of)
        for value, row in ((cell.val, cell.val_hits), (cell.test, cell.test_hits)):
            assert np.mean([float(one) for one in row]) == pytest.approx(value, abs=1e-12)
        assert cell.ece is cell.ece_scaled is cell.temperature is None
        assert "before" in cell.test_retained
    assert all(0 < len(found["full", seed].train_of) <= 32 for seed in (0, 1))
    assert 0.0 < found["probe", 0].costs.trainable_share < 1.0
    assert found["scratch", 0].costs.trainable_share == found["full", 0].costs.trainable_share


def test_the_start_is_what_ptft_evaluate_says_of_it(
    whole: tuple[Comparison, ComparisonOutcome],
) -> None:
    wanted, outcome = whole
    assert isinstance(wanted.objective, DetectObjective)
    model = load_model(Path(wanted.init.from_)) if wanted.init else None
    assert model is not None
    train, test = (open_split(wanted.data, split, seed=0) for split in ("train", "test"))
    prepare_detector(model, wanted.objective, train.box_classes or [], seed=0)
    figures = detect_figures(detect_split(model, test, DetectEvaluation(), workers=0))
    [start] = [c for c in outcome.cells if (c.arm, c.seed) == ("zero_shot", 0)]
    assert start.test == pytest.approx(figures["map"], abs=1e-6)


def test_the_report_speaks_of_pictures_and_is_the_same_again(
    whole: tuple[Comparison, ComparisonOutcome],
) -> None:
    wanted, outcome = whole
    report = (outcome.folder / "report.md").read_text()
    assert "With 8 pictures: " in report and "16 pictures)" in report and "| ece |" not in report
    results = json.loads((outcome.folder / "results.json").read_text())
    assert results["metric"] == "map" and {one["ece"] for one in results["arms"]} == {None}
    tables = report[report.index("## Recommended") : report.index("## What it took")]
    assert "## 8 pictures: " in explain_again(outcome.folder)
    assert tables in (outcome.folder / "report.md").read_text()
    assert f"{outcome.folder.name} | 8 | " in summarise([outcome.folder])
    [lost] = outcome.folder.glob("cells/full_8_1.*.json")
    before = json.loads(lost.read_text())
    lost.unlink()
    compare(wanted, log=SILENT)
    after = json.loads(lost.read_text())
    assert {**before, "costs": None, "trials": None} == {**after, "costs": None, "trials": None}


def test_workers_share_boxes_and_leave_the_same_cells(
    whole: tuple[Comparison, ComparisonOutcome], tmp_path: Path
) -> None:
    """Each has a disk of its own; one is killed in the middle of a job, the last that is left, and
    another does it."""
    wanted, alone = whole
    mirror = tmp_path / "mirror"
    (mirror / "cells").mkdir(parents=True)
    for cell in alone.folder.glob("cells/*.json"):
        if not cell.name.startswith("full"):
            shutil.copy(cell, mirror / "cells")
    places = {"dir": str(tmp_path / "last"), "mirror": str(mirror)}
    asked = wanted.model_copy(update={"run": wanted.run.model_copy(update=places)})
    recipe = tmp_path / "boxes.yaml"
    recipe.write_text(dump_recipe(asked))
    with Warm(tmp_path) as warm:
        killed = warm.ptft("compare", recipe, f"run.dir={tmp_path / 'killed'}", "--worker")
        assert killed.wait_until(lambda: [*mirror.glob("claims/full*.json")])
        killed.kill()
        assert killed.wait() == -signal.SIGKILL
    outcome = compare(asked, worker=True, log=SILENT)
    assert outcome.left == 0
    assert measured(outcome.folder) == measured(mirror) == measured(alone.folder)
    assert len([*mirror.glob("claims/*.json")]) == 2, "claimed anew, and nothing else was"


def test_more_pictures_than_there_are_is_refused_before_any_training(tmp_path: Path) -> None:
    wanted = boxes_comparison(tmp_path, budgets=[8, 33])
    with pytest.raises(RecipeError, match=r"^compare\.budgets: 33; allowed: at most 32, "):
        compare(wanted, log=SILENT)
    assert not [*tmp_path.glob("**/cells/*.json")]


def test_what_is_recommended_trains_on_all_pictures(
    whole: tuple[Comparison, ComparisonOutcome],
) -> None:
    wanted, outcome = whole
    arms = gather(outcome.cells, confidence=0.95)
    full = next(arm for arm in arms if arm.name == "full")
    recipe = recommended_recipe(wanted, full, samples=32, at=8)
    assert isinstance(recipe.objective, DetectObjective)
    assert recipe.data.limit is None and recipe.optim.samples_seen == 64
    assert [item.kind for item in recipe.evaluate] == ["detect", "retrieval"]


def test_a_mix_keeps_the_head_that_learned(whole: tuple[Comparison, ComparisonOutcome]) -> None:
    """The start has none, and a new one's numbers are chance."""
    wanted, _ = whole
    target = Target(wanted)
    (start, new), (trained, _) = (starting_model(wanted, target) for _ in range(2))
    assert new and start.detector is not None and trained.detector is not None
    with torch.no_grad():
        for parameter in trained.parameters():
            parameter.add_(1.0)
    before, learned = start.state_dict(), trained.state_dict()
    for name, mixed in interpolate(start, trained, 0.5, new_detector=new).state_dict().items():
        if name.startswith("detector."):
            assert torch.equal(mixed, learned[name])
        elif mixed.is_floating_point():
            assert torch.allclose(mixed, (before[name] + learned[name]) / 2, atol=1e-5), name


@pytest.mark.parametrize("kind", ["lp_ft", "flyp", "tip_adapter", "projection", "replay"])
def test_arms_that_learn_from_classes_or_captions_are_refused(tmp_path: Path, kind: str) -> None:
    wanted = boxes_comparison(tmp_path, arms=[{"kind": "zero_shot"}, {"kind": kind}])
    with pytest.raises(RecipeError, match=rf"arms.{kind}.kind: '{kind}' with .* l2_sp$"):
        compare(wanted, log=SILENT)


def test_boxes_go_with_boxes(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"evaluate\.0\.kind: 'retrieval' with objective"):
        boxes_comparison(tmp_path, evaluate=[{"kind": "retrieval"}])
    kept = {"kind": "detect", "data": {"kind": "scenes", "size": 64, "val": 4, "test": 4}}
    with pytest.raises(RecipeError, match=r"compare\.retain\.detect\.kind: 'detect'; allowed: ret"):
        compare(boxes_comparison(tmp_path, retain=[kept]), log=SILENT)


def test_pictures_that_show_nothing_ask_nothing() -> None:
    whole = open_split(ScenesData(size=32, train=4), "train", seed=0)
    first = whole[0].boxes
    assert first is not None and whole.box_classes
    named = {whole.box_classes[number] for number in first.labels}
    other = next(name for name in whole.box_classes if name not in named)
    one = Part(whole, np.array([0]))
    assert has_things(one, DetectEvaluation())
    assert has_things(one, DetectEvaluation(classes=[*named]))
    assert not has_things(one, DetectEvaluation(classes=[other]))
