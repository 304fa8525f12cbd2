"""A detector on the one loop: it learns, resumes exactly, and its folder gives it back."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from ptft.artifact import RunFiles
from ptft.errors import DataError, RecipeError
from ptft.model import load_model
from ptft.model.detecting import query_embeddings
from tests.support.runs import interrupt, largest_difference, recipe, run, weights

SMALL: dict[str, Any] = {
    "model__image_size": 160,  # ten by ten places of test_vit
    "data__size": 64,
    "data__train": 32,
    "data__val": 8,
    "objective": {"kind": "detect", "templates": ["a {}", "the {}"], "mosaic": 0.5},
    "augment": {"crop_scale": [0.5, 1.0], "flip": True},
    "optim__samples_seen": 24,
    "optim__global_batch": 4,
    "evaluate": [{"kind": "detect", "batch": 4}],
    "run__neighbours": False,
    "run__page": False,
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("detect") / "whole"
    assert run(folder, **SMALL).finished
    return folder


def test_a_run_measures_and_its_model_tells_boxes(whole: Path) -> None:
    figures = json.loads((whole / RunFiles.METRICS).read_text())["detect"]
    assert {"map", "ap50", "ap75", "ar100"} <= set(figures)
    assert figures["images"] == 8 and figures["boxes"] == 16 and figures["classes"] == 13
    model = load_model(whole).eval()
    assert model.detector is not None
    assert len(model.detector.spec.classes) == 51
    assert model.detector.spec.templates == ("a {}", "the {}")
    with torch.no_grad():
        queries = query_embeddings(model, ["red circle"], model.detector.spec.templates)
        found = model.detect(torch.randn(1, 3, 160, 160), queries)
    assert found.logits.shape == (1, 100, 1) and found.boxes.shape == (1, 100, 4)


def test_a_run_that_was_stopped_goes_on_to_the_same_weights(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    part = tmp_path / "part"
    interrupt(monkeypatch, part, 3, **SMALL)
    assert run(part, resume=True, **SMALL).finished
    assert largest_difference(whole, part) == 0.0


def test_micro_batches_give_the_same_weights(whole: Path, tmp_path: Path) -> None:
    run(tmp_path / "micro", **{**SMALL, "optim__micro_batch": 2})
    assert largest_difference(whole, tmp_path / "micro") < 2e-4


def test_it_goes_on_from_a_detector_and_locks_what_is_said(whole: Path, tmp_path: Path) -> None:
    again = tmp_path / "again"
    changes = {key: value for key, value in SMALL.items() if not key.startswith("model")}
    changes |= {
        "model": None,
        "init": {"from": str(whole)},
        "adapt": {"kind": "full", "lock": ["text", "image"]},
        "optim__samples_seen": 8,
        "early_stop": None,
    }
    run(again, **changes)
    before, after = weights(whole), weights(again)
    moved = {name.split(".")[0] for name in before if not torch.equal(before[name], after[name])}
    assert "detector" in moved and "image" not in moved
    trunk = [n for n in before if n.startswith("text.") and "text_projection" not in n]
    assert all(torch.equal(before[name], after[name]) for name in trunk)


def test_data_without_boxes_is_refused_by_name(tmp_path: Path) -> None:
    from PIL import Image

    for name in ("cat", "dog"):
        (tmp_path / "train" / name).mkdir(parents=True)
        Image.new("RGB", (32, 32)).save(tmp_path / "train" / name / "a.png")
    data = {"kind": "folder", "train": str(tmp_path / "train")}
    with pytest.raises(DataError, match="'detect' learns from boxes"):
        run(tmp_path / "run", **{**_without_scenes(), "data": data, "evaluate": []})


def test_what_does_not_know_boxes_yet_refuses_them(whole: Path, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="whose places no teacher answers"):
        recipe(tmp_path, **SMALL, distill={"from": str(whole)})


def _without_scenes() -> dict[str, Any]:
    return {key: value for key, value in SMALL.items() if not key.startswith("data")}
