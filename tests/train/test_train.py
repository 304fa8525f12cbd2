"""The loop: exact, interruptible, and clear about what went wrong."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from ptft.artifact import RunFiles
from ptft.checkpoint import checkpoints
from ptft.errors import RecipeError, TrainingError, UsageError
from ptft.model import DualEncoder
from ptft.recipe import load_recipe
from ptft.runs.folder import RunStatus, read_run
from ptft.speech import SILENT
from ptft.train import train
from ptft.train.context import Observer
from tests.support.runs import BATCH, STEPS, interrupt, largest_difference, recipe, run, weights

LBFGS = {
    "optim__optimizer": "lbfgs",
    "optim__weight_decay": 0.0,
    "optim__clip_grad_norm": None,
    "optim__global_batch": 80,
    "optim__samples_seen": STEPS * 80,
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An uninterrupted run."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    assert run(folder).finished
    return folder


def test_same_recipe_and_seed_same_weights(whole: Path, tmp_path: Path) -> None:
    run(tmp_path / "again", run__workers=2, run__checkpoint_every=100)
    assert largest_difference(whole, tmp_path / "again") == 0.0
    run(tmp_path / "other", seed=1)
    assert largest_difference(whole, tmp_path / "other") > 0.0


@pytest.mark.parametrize("step", [1, 3, 5, 7])
def test_resumed_equals_uninterrupted(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    interrupt(monkeypatch, tmp_path / "run", step)
    assert run(tmp_path / "run", resume=True).finished
    assert largest_difference(whole, tmp_path / "run") == 0.0
    lines = (tmp_path / "run" / RunFiles.LOG).read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == list(range(1, STEPS + 1))
    same = (whole / RunFiles.LOG).read_text().splitlines()
    assert [json.loads(a)["loss"] for a in lines] == [json.loads(b)["loss"] for b in same]


@pytest.mark.parametrize(
    "changes",
    [
        {"objective__kind": "siglip"},
        {"objective__kind": "classify"},
        {"model__image": "test_resnet", "adapt__freeze_norm": False},  # channels-last weights
        {"adapt__kind": "probe"},
        {"objective__kind": "classify", "adapt__kind": "probe", **LBFGS},
    ],
    ids=["siglip", "classify", "convolutions", "probe", "line search"],
)
def test_other_recipes_resume_exactly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any]
) -> None:
    assert run(tmp_path / "whole", **changes).finished
    interrupt(monkeypatch, tmp_path / "cut", 4, **changes)
    assert run(tmp_path / "cut", resume=True, **changes).finished
    assert largest_difference(tmp_path / "whole", tmp_path / "cut") == 0.0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"optim__global_batch": 64},
            "global_batch: 64, and the training set has 80 .* allowed: 80",
        ),
        ({"optim__weight_decay": 0.1}, "weight_decay 0.1 with optimizer 'lbfgs'.* allowed: 0"),
        ({"optim__clip_grad_norm": 1.0}, "clip_grad_norm 1.0 with .* allowed: null"),
    ],
)
def test_what_a_line_search_cannot_do_is_refused(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(RecipeError, match=message):
        run(tmp_path / "run", **{**LBFGS, **changes})
    assert not (tmp_path / "run").exists()


def test_without_a_step_no_batch_is_too_small_for_a_line_search(tmp_path: Path) -> None:
    changes = {**LBFGS, "optim__global_batch": 64, "objective__kind": "classify"}
    assert run(tmp_path / "run", adapt__kind="tip_adapter", **changes).finished


@pytest.mark.parametrize("spoiled", ["model.safetensors", "optimizer.safetensors", "state.json"])
def test_a_spoiled_newest_checkpoint_falls_back_to_the_one_before(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spoiled: str
) -> None:
    folder = tmp_path / "run"
    interrupt(monkeypatch, folder, 7)
    newest, before = checkpoints(folder / RunFiles.CHECKPOINTS)
    assert (newest.name, before.name) == ("step-00000007", "step-00000006")
    data = bytearray((newest / spoiled).read_bytes())
    data[len(data) // 2] ^= 0xFF
    (newest / spoiled).write_bytes(data)
    assert run(folder, resume=True).finished
    assert largest_difference(whole, folder) == 0.0


def test_what_a_run_leaves(whole: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    result = run(
        folder,
        evaluate=[
            {"kind": "retrieval", "name": "held-out"},
            {"kind": "retrieval", "name": "last", "split": "test"},
        ],
        run__evaluate_every=3,
        run__trackers=["tensorboard"],
    )
    assert largest_difference(whole, folder) == 0.0, "evaluation must not change the weights"
    record = json.loads((folder / RunFiles.RUN).read_text())
    assert record["status"] == "finished"
    assert (record["step"], record["seen"]) == (STEPS, STEPS * BATCH)
    assert json.loads((folder / RunFiles.METRICS).read_text()) == result.metrics
    assert set(result.metrics) == {"held-out", "last"}
    [read] = record["test_reads"]
    assert (read["by"], read["step"], read["read"]) == ("ptft train", STEPS, ["last"])
    assert (folder / RunFiles.CURVES).read_bytes().startswith(b"\x89PNG")
    assert list((folder / RunFiles.TENSORBOARD).glob("events.*"))
    assert len(checkpoints(folder / RunFiles.CHECKPOINTS)) == 2
    again = load_recipe(folder / RunFiles.RECIPE)
    assert again.optim.precision == "fp32"
    lines = [json.loads(line) for line in (folder / RunFiles.LOG).read_text().splitlines()]
    for name, steps in {"held-out": [3, 6, STEPS], "last": [STEPS]}.items():
        found = [line["step"] for line in lines if any(f"{name}/" in key for key in line)]
        assert found == steps


def test_a_run_without_pictures_is_the_same_run(whole: Path, tmp_path: Path) -> None:
    run(tmp_path / "run", run__page=False)
    assert largest_difference(whole, tmp_path / "run") == 0.0
    left = {path.name for path in (tmp_path / "run").iterdir()}
    assert not left & {RunFiles.PAGE, RunFiles.CURVES, RunFiles.NEIGHBOURS}


def test_an_observer_sees_the_model_on_its_way_and_moves_nothing(
    whole: Path, tmp_path: Path
) -> None:
    """Two shares of eight steps fall on the first one, and none is looked at after the last."""
    scales = []

    def observe(model: DualEncoder, number: int) -> None:
        model.eval()
        scales.append((number, model.logit_scale.item()))

    observer = Observer((0.01, 0.1, 0.5, 0.99), observe)
    train(recipe(tmp_path / "run"), log=SILENT, observer=observer)
    assert [number for number, _ in scales] == [1, 2]
    assert len({scale for _, scale in scales}) == 2  # it learned in between
    assert largest_difference(whole, tmp_path / "run") == 0.0


def test_an_observer_may_give_a_run_up(tmp_path: Path) -> None:
    def observe(model: DualEncoder, number: int) -> None:
        raise KeyError("enough")

    with pytest.raises(KeyError, match="enough"):
        train(recipe(tmp_path / "run"), log=SILENT, observer=Observer((0.5,), observe))
    assert read_run(tmp_path / "run").status == RunStatus.FAILED


def test_a_measured_precision_stands_in_the_resolved_recipe(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    run(folder, optim__precision="auto", optim__samples_seen=BATCH)
    resolved = load_recipe(folder / RunFiles.RECIPE)
    assert resolved.optim.precision in ("fp32", "bf16")
    assert run(folder, resume=True, optim__precision="auto", optim__samples_seen=BATCH).finished


def test_runs_are_not_mixed_up(whole: Path, tmp_path: Path) -> None:
    before = weights(whole)
    with pytest.raises(UsageError, match="something is there already"):
        run(whole)
    with pytest.raises(UsageError, match=r"optim\.lr is 0\.001 there and 0\.5 here"):
        run(whole, resume=True, optim__lr=0.5)
    with pytest.raises(UsageError, match="no run to go on with"):
        run(tmp_path / "absent", resume=True)
    again = run(whole, resume=True)
    assert again.finished, "a finished run has nothing left to do"
    assert again.metrics == json.loads((whole / RunFiles.METRICS).read_text())
    after = weights(whole)
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_folders_are_numbered_when_none_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    changes = {"run__dir": None, "optim__samples_seen": BATCH}
    folders = [run(tmp_path, **changes).folder for _ in range(3)]
    assert [str(folder) for folder in folders] == ["runs/tiny", "runs/tiny-2", "runs/tiny-3"]
    assert str(run(tmp_path, resume=True, **changes).folder) == "runs/tiny-3"


def test_a_loss_that_is_not_finite_names_its_samples(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"the loss is (nan|inf); its samples: .*train/0000"):
        run(tmp_path / "run", optim__lr=1e30, optim__clip_grad_norm=None, optim__warmup=0.0)
