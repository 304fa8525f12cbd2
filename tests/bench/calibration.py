"""Temperature scaling on validation: calibration error on test before and after, over seeds.

A small residual net is trained from scratch to sort clothes (Fashion-MNIST); a fifth of the
training set is held out as validation. What ``objective.calibrate`` does at the end of such a run
is done here, between two looks at the test set.

There has to be something to mend: the same net sorts hands that show digits to 97 % with an error
of 1.0 % on 519 pictures, and a temperature fitted on 309 made that 2.4 %.
"""

import tempfile
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from torch import Tensor

from ptft.data import open_split, open_val
from ptft.evaluate import calibrate_head, embed_split
from ptft.evaluate.figures import calibration_error
from ptft.model import load_model
from ptft.recipe import Recipe
from ptft.recipe.load import parse_recipe
from ptft.speech import SILENT
from ptft.train import train
from tests.bench._parts import shared_data

__all__ = ["BARS", "run"]

SETS, SMALL = ("fashion_mnist",), ("sign_digits",)
SEEDS, SAMPLES = 4, 40960
BARS = {
    "largest share of the error that is left": ("<=", 0.5),
    "predictions that changed": ("<=", 0.0),
}


@dataclass(frozen=True)
class _Found:
    """One seed: accuracy, calibration error before and after, and changed predictions."""

    top1: float
    temperature: float
    before: float
    after: float
    changed: int


def run(*, smoke: bool = False) -> dict[str, float]:
    torch.set_num_threads(1)
    sets, seeds, samples = (SMALL, 1, 128) if smoke else (SETS, SEEDS, SAMPLES)
    shared_data(*sets)
    figures: dict[str, float] = {}
    left, changed = [], 0
    print(f"{'':16}{'accuracy':>9}{'temperature':>13}{'error before':>14}{'after':>8}   by seed")
    for name in sets:
        found = [_measure(name, seed, samples) for seed in range(seeds)]
        before, after = (
            100 * fmean(getattr(f, when) for f in found) for when in ("before", "after")
        )
        by_seed = ", ".join(f"{100 * f.before:.1f} -> {100 * f.after:.1f}" for f in found)
        print(
            f"{name:16}{100 * fmean(f.top1 for f in found):8.1f} "
            f"{fmean(f.temperature for f in found):13.2f}{before:14.1f}{after:8.1f}   {by_seed}"
        )
        left.append(after / before)
        changed += sum(f.changed for f in found)
        figures |= {f"{name}: before, %": before, f"{name}: after, %": after}
    return {
        **figures,
        "largest share of the error that is left": max(left),
        "predictions that changed": changed,
    }


@torch.no_grad()
def _measure(name: str, seed: int, samples: int) -> _Found:
    with tempfile.TemporaryDirectory() as made:
        recipe = _recipe(name, seed, samples, Path(made) / "run")
        with torch.enable_grad():
            train(recipe, log=SILENT)
        model = load_model(Path(made) / "run")
    classes = model.spec.classes
    test = embed_split(
        model, open_split(recipe.data, "test", classes=classes), batch=256, workers=0
    ).labelled()
    assert test is not None
    images_nd, labels_n = test
    before: Tensor = model.class_logits(images_nd)
    val = open_val(recipe.data, None, seed=seed, classes=classes)
    temperature = calibrate_head(model, val, workers=0).temperature
    after = model.class_logits(images_nd)
    return _Found(
        top1=float((before.argmax(1) == labels_n).double().mean()),
        temperature=temperature,
        before=calibration_error(before, labels_n),
        after=calibration_error(after, labels_n),
        changed=int((before.argmax(1) != after.argmax(1)).sum()),
    )


def _recipe(name: str, seed: int, samples: int, folder: Path) -> Recipe:
    data = f"../shared/data/{name}"
    values: dict[str, Any] = {
        "name": name,
        "seed": seed,
        "model": {
            "image": "test_resnet",
            "image_size": 32,
            "embed_dim": 64,
            # a classifier does not read it
            "text": {"width": 32, "layers": 1, "heads": 1, "context_length": 8},
        },
        "data": {
            "kind": "shards",
            "train": f"{data}/train-*.tar",
            "test": f"{data}/test-*.tar",
            "classes": f"{data}/classes.json",
            "hold_out": 0.2,
        },
        "objective": {"kind": "classify", "head": "random"},
        "optim": {
            "lr": 2e-3,
            "weight_decay": 0.05,
            "global_batch": 64,
            "samples_seen": samples,
            "precision": "fp32",
        },
        "run": {
            "dir": str(folder),
            "workers": 0,
            "threads": 1,
            "trackers": [],
            "neighbours": False,
        },
    }
    return parse_recipe(values, where=name)
