"""What a step is said to need is what a process grows by, or somewhat more; never less."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ptft.errors import RecipeError
from ptft.recipe.load import parse_recipe
from ptft.speech import SILENT
from ptft.train import predict_memory, train
from tests.support.whole import WHOLE

TEXT = {"width": 192, "layers": 4, "heads": 4, "context_length": 32}
VIT = {"image": "vit_tiny_patch16_224", "image_size": 96, "text": TEXT, "embed_dim": 128}
CASES: dict[str, tuple[int, dict[str, Any]]] = {
    "transformer": (64, {"model": VIT}),
    "convolutions": (64, {"model": {**VIT, "image": "resnet18"}}),
    "sigmoid loss": (
        32,
        {
            "model": {**VIT, "image_pool": "map", "image_projection": "none", "embed_dim": 192},
            "objective": {"kind": "siglip"},
        },
    ),
    "micro batches": (64, {"model": VIT, "optim": {"micro_batch": 16}}),
    "an adapter": (64, {"model": VIT, "adapt": {"kind": "lora"}}),
    "a checkpoint beside the steps": (
        16,
        {
            "model": {**VIT, "image": "vit_small_patch16_224"},
            "optim": {"ema": 0.9},
            "run": {"checkpoint_every": 1},
        },
    ),
}

FEW = ("transformer", "micro batches")


def recipe(folder: Path, batch: int, changes: dict[str, Any]) -> dict[str, Any]:
    optim = {"samples_seen": 2 * batch, "global_batch": batch, "precision": "fp32"}
    run = {"dir": str(folder), "workers": 0, "page": False, "trackers": [], "threads": 1}
    return {
        "name": "mine",
        "data": {"kind": "scenes", "size": 96, "train": 4 * batch, "val": 16, "test": 16},
        **changes,
        "run": {**run, **changes.get("run", {})},
        "optim": {**optim, **changes.get("optim", {})},
    }


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux's own count")
@pytest.mark.parametrize(
    "case", [case if case in FEW else pytest.param(case, marks=WHOLE) for case in CASES]
)
def test_a_process_grows_by_what_is_predicted_at_most(case: str, tmp_path: Path) -> None:
    values = recipe(tmp_path / "run", *CASES[case])
    done = subprocess.run(
        [sys.executable, "-m", "tests.support.memory_run"],
        input=json.dumps(values),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    grew = int(done.stdout) / 2**30
    predicted = predict_memory(parse_recipe(values, "test"))["gib"]["total"]
    assert grew <= predicted <= 1.6 * grew, (grew, predicted)


def test_the_sum_is_that_of_its_parts(tmp_path: Path) -> None:
    values = recipe(tmp_path, 4, {"model": {**VIT, "image": "test_vit", "image_size": 160}})
    gib = predict_memory(parse_recipe(values, "test"))["gib"]
    total = gib.pop("total")
    assert sum(gib.values()) == pytest.approx(total, abs=0.001 * len(gib))


@pytest.mark.parametrize("what", ["check", "train"])
def test_one_sample_under_a_batch_norm_is_refused(tmp_path: Path, what: str) -> None:
    model = {**VIT, "image": "test_resnet", "image_size": 32}
    labelled = {"model": model, "objective": {"kind": "classify"}}
    values = recipe(tmp_path / "run", 1, labelled)
    made = parse_recipe(values, "test")
    with pytest.raises(RecipeError, match=r"optim\.global_batch: 1: .* is a batch norm"):
        predict_memory(made) if what == "check" else train(made, log=SILENT)
    assert not (tmp_path / "run").exists()
    for allowed in ({"freeze_norm": True}, {"lock": ["image"]}):
        kept = parse_recipe({**values, "adapt": {"kind": "full", **allowed}}, "test")
        assert predict_memory(kept)["samples"] == 4
