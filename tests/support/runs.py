"""Runs of a few seconds: as they are, and interrupted."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from ptft.artifact import RunFiles
from ptft.data import Batch
from ptft.recipe import Recipe
from ptft.recipe.load import parse_recipe
from ptft.runs.opening import Resume
from ptft.sequence import run_recipe
from ptft.speech import SILENT
from ptft.train import TrainResult, exit_code, loop

STEPS, BATCH = 8, 16


def recipe(folder: Path, **changes: Any) -> Recipe:
    """Eight steps on scenes with towers of a few hundred thousand weights, one with dropout."""
    values: dict[str, Any] = {
        "name": "tiny",
        "model": {
            "image": "test_vit",
            "image_size": 32,
            "text": {"width": 32, "layers": 1, "heads": 2, "context_length": 32},
            "embed_dim": 16,
        },
        "data": {"kind": "scenes", "size": 32, "train": 80, "val": 16, "test": 16},
        "adapt": {"kind": "full"},
        "optim": {
            "samples_seen": STEPS * BATCH,
            "global_batch": BATCH,
            "lr": 1e-3,
            "precision": "fp32",
        },
        "run": {
            "dir": str(folder),
            "workers": 0,
            "checkpoint_every": 3,
            "log_every": 1,
            "trackers": [],
        },
    }
    for dotted, value in changes.items():
        place = values
        *parents, last = dotted.split("__")
        for key in parents:
            place = place.setdefault(key, {})
        place[last] = value
    return parse_recipe(values, where="test")


def run(folder: Path, *, resume: Resume = False, **changes: Any) -> TrainResult:
    return run_recipe(recipe(folder, **changes), resume=resume, log=SILENT)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / RunFiles.FINAL / "model.safetensors")


def largest_difference(one: Path, other: Path) -> float:
    a, b = weights(one), weights(other)
    assert a.keys() == b.keys()
    return max((a[name].double() - b[name].double()).abs().max().item() for name in a)


def interrupt(
    monkeypatch: pytest.MonkeyPatch,
    folder: Path,
    step: int,
    *,
    number: int = signal.SIGTERM,
    code: int = 143,
    resume: Resume = False,
    **changes: Any,
) -> None:
    """Run until a signal comes during ``step``, counted from here, and ends it with ``code``."""
    plain, left = loop.batches, step

    def signalling(*args: Any, **kwargs: Any) -> Iterator[Batch]:
        nonlocal left
        for batch in plain(*args, **kwargs):
            left -= 1
            if left == 0:
                os.kill(os.getpid(), number)
            yield batch

    with monkeypatch.context() as patch:
        patch.setattr(loop, "batches", signalling)
        result = run(folder, resume=resume, **changes)
    assert not result.finished
    assert exit_code(result) == code
