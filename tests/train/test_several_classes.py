"""Several classes a sample: the loss by a loop in float64, a run, its thresholds, its figures."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ptft.api import measure_beside
from ptft.artifact import RunFiles, read_json
from ptft.errors import ModelError
from ptft.evaluate import evaluate
from ptft.model import load_model
from ptft.objective import classify_loss
from ptft.recipe import ClassifyEvaluation, ClassifyObjective, ScenesData, dump_recipe
from ptft.runs.folder import read_run
from ptft.train.class_weights import class_weights
from ptft.train.setup import set_up
from tests.support.runs import interrupt, largest_difference, recipe, run
from tests.support.several import SEVERAL, json_folder


def by_hand(section: ClassifyObjective, logits: Any, has: Any, weights: list[float]) -> float:
    total = 0.0
    for row, own in zip(logits, has, strict=True):
        for one, there, weight in zip(row, own, weights, strict=True):
            yes = 1 / (1 + math.exp(-one))
            target = there * (1 - section.label_smoothing) + section.label_smoothing / 2
            loss = -(weight * target * math.log(yes) + (1 - target) * math.log(1 - yes))
            total += (1 - (yes if there else 1 - yes)) ** section.focal * loss
    return total / (len(logits) * len(weights))


@pytest.mark.parametrize("focal", [0.0, 0.5, 2.0])
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_the_loss_is_that_of_a_loop_by_hand(focal: float, smoothing: float) -> None:
    generator = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(6, 3, generator=generator, dtype=torch.float64)
    has = torch.rand(6, 3, generator=generator) < 0.4
    section = ClassifyObjective(focal=focal, label_smoothing=smoothing)
    for weights in ([1.0, 1.0, 1.0], [0.2, 3.0, 1.0]):
        given = torch.tensor(weights, dtype=torch.float64)
        found = classify_loss(section, logits, has, torch.zeros(1), given)
        expected = by_hand(section, logits.tolist(), has.tolist(), weights)
        assert found.loss.item() == pytest.approx(expected, abs=1e-12)
    right = ((logits > 0) == has).double().mean().item()
    assert found.scalars["accuracy"] == pytest.approx(right)


def test_balanced_weights_are_those_without_over_those_with() -> None:
    section = ClassifyObjective(class_weights="balanced")
    found = class_weights(section, ["a", "b", "c"], np.array([10, 90, 0]), 100)
    assert found is not None and found.tolist() == pytest.approx([9.0, 1 / 9, 1.0])


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("several") / "run"
    run(folder, **SEVERAL, early_stop={"every": 4})
    return folder


def test_a_run_leaves_thresholds_that_val_chose(trained: Path) -> None:
    model, metrics = load_model(trained), read_json(trained / RunFiles.METRICS)
    thresholds = model.spec.thresholds
    assert thresholds is not None and len(thresholds) == len(model.spec.classes) == 16
    assert len(set(thresholds)) > 2
    assert '"classify/map"' in (trained / RunFiles.LOG).read_text()  # early stopping's looks
    notes = "\n".join(read_run(trained).notes)
    assert "thresholds chosen on 24 samples of val" in notes
    assert "the head begins with each class as likely as it is among 80 training samples" in notes
    val, test, named = metrics["classify"], metrics["last"], metrics["zero_shot"]
    assert val["micro_f1"] >= val["micro_f1_even"]  # chosen there
    assert "micro_f1" not in named and named["map"] > 0.0
    assert test["zero_shot_top1"] == named["top1"]
    data = recipe(trained, **SEVERAL).data
    again = evaluate(model, [ClassifyEvaluation(split="test")], data, seed=0, device="cpu")
    assert again["classify"]["map"] == test["map"]


def test_test_pictures_choose_no_threshold(trained: Path, tmp_path: Path) -> None:
    data = {**SEVERAL["data"], "test": 40}
    run(tmp_path / "other", **{**SEVERAL, "data": data}, early_stop={"every": 4})
    here, there = load_model(trained).spec, load_model(tmp_path / "other").spec
    assert here.thresholds == there.thresholds


def test_a_run_that_was_stopped_is_the_same(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "run"
    interrupt(monkeypatch, folder, 4, **SEVERAL, early_stop={"every": 4})
    run(folder, resume=True, **SEVERAL, early_stop={"every": 4})
    assert largest_difference(trained, folder) == 0.0
    assert load_model(folder).spec.thresholds == load_model(trained).spec.thresholds


@pytest.mark.parametrize("head", ["prompts", "random"])
def test_a_head_begins_with_each_class_as_likely_as_it_is(head: str, tmp_path: Path) -> None:
    made = set_up(recipe(tmp_path, **SEVERAL, objective__head=head), torch.device("cpu"))
    counts = made.samples.class_counts()
    assert counts is not None and made.model.head is not None
    pixels = [np.asarray(made.samples[index].image) for index in range(80)]
    shown = made.model.spec.preprocess.normalise(np.stack(pixels))
    with torch.no_grad():
        found = made.model.eval().classify(torch.from_numpy(shown)).sigmoid().mean(dim=0)
    torch.testing.assert_close(found.numpy(), ((counts + 0.5) / 81).astype("f4"), atol=1e-4, rtol=0)


def test_an_adapter_keeps_its_thresholds(tmp_path: Path) -> None:
    run(tmp_path / "run", **SEVERAL, adapt={"kind": "lora"})
    kept = read_json(tmp_path / "run" / RunFiles.ADAPTER / "adapter.json")["thresholds"]
    assert tuple(kept) == load_model(tmp_path / "run").spec.thresholds


def test_without_val_each_class_is_told_from_a_half_on(tmp_path: Path) -> None:
    labels = [["a", "b"][: n % 3] for n in range(32)]
    section = json_folder(tmp_path / "data", labels).model_dump(exclude_defaults=True)
    run(tmp_path / "run", objective__kind="classify", data={"kind": "folder", **section})
    assert load_model(tmp_path / "run").spec.thresholds == (0.5, 0.5)
    assert "data has no val to choose thresholds by" in "\n".join(read_run(tmp_path / "run").notes)


def test_a_head_for_one_class_is_no_head_for_several(trained: Path, tmp_path: Path) -> None:
    run(tmp_path / "one", objective__kind="classify")
    several = recipe(tmp_path, **SEVERAL).data
    asked = [ClassifyEvaluation()]
    with pytest.raises(ModelError, match="'many'; the model has a head for one class a sample"):
        evaluate(load_model(tmp_path / "one"), asked, several, seed=0, device="cpu")
    one = ScenesData(size=32, train=8, val=8)
    with pytest.raises(ModelError, match="a head for several classes a sample"):
        evaluate(load_model(trained), asked, one, seed=0, device="cpu")


def test_the_page_and_the_figures_of_each_class(trained: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    found = measure_beside([str(trained)], None, (), per_class=True, page=page)[str(trained)]
    own = found["last"]["per_class"]
    seen = [one for one in own.values() if one["images"]]
    assert found["last"]["map"] == pytest.approx(
        sum(one["average_precision"] for one in seen) / len(seen)
    )
    text = page.read_text()
    assert "average precision" in text and "decisions, one for each class" in text
    assert "Similarities of prompts have no threshold" in text


def test_a_recipe_of_one_class_says_nothing_new(tmp_path: Path) -> None:
    """Its digest is that of before there was a choice."""
    from ptft.recipe import deciding_values

    values = deciding_values(recipe(tmp_path))
    assert "labels" not in values["data"]
    assert "labels: many" in dump_recipe(recipe(tmp_path, **SEVERAL))
