"""A detector of blood cells from 205 pictures: what pretraining on ImageNet gives, and the count.

Two starts by one recipe: the pretrained MobileNetV2, and the same network with random weights (its
batch norms learn then, and it learns at the rate of the head). A cell is counted where its score is
above a threshold, the one that counts best on validation; the error is that of a picture of the
test split, as a share of what is marked there. Minutes are of the CPU.
"""

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ptft.data import open_split
from ptft.evaluate.detect import Detections, detect_split
from ptft.model import load_model
from ptft.recipe import DetectEvaluation, load_recipe
from tests.bench._parts import ptft_beside, shared_data

__all__ = ["BARS", "run"]

BARS = {
    "ap50_points": (">=", 70.0),
    "over_scratch_points": (">=", 0.0),
    "count_error_percent": ("<=", 15.0),
    "cpu_minutes": ("<=", 25.0),
}

_RECIPE = "detect/bccd"
_COUNTED = "RBC"
_CLASSES = ("RBC", "WBC", "Platelets")
_HERE = ("run.threads=1", "run.workers=0", "run.trackers=[]", "run.page=false")
_STARTS = {
    "pretrained": (),
    "scratch": ("model.image_weights=null", "adapt.freeze_norm=false", "optim.lr_image=null"),
}


def run(*, smoke: bool = False) -> dict[str, float]:
    data = shared_data("bccd", "mobilenetv2") / "bccd"
    figures: dict[str, float] = {}
    ap50: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as made:
        small = _few(data, Path(made)) if smoke else ()
        folders = {start: Path(made) / start for start in _STARTS}
        commands = {
            start: ("train", _RECIPE, f"run.dir={folders[start]}", *_HERE, *overrides, *small)
            for start, overrides in _STARTS.items()
        }
        minutes = ptft_beside(commands, smoke=smoke)
        print(f"{'start':<12}{'AP50':>7}{'mAP':>7}{'RBC':>7}{'WBC':>7}{'Plat.':>7}", end="")
        print(f"{'count error':>13}{'CPU minutes':>13}")
        for start, folder in folders.items():
            found = json.loads((folder / "metrics.json").read_text())["test"]
            error = count_error(folder)
            of_class = [found["ap50_by_class"].get(name, 0.0) for name in _CLASSES]
            shares = "".join(f"{100 * v:>7.1f}" for v in (found["ap50"], found["map"], *of_class))
            cost = f"{100 * error:>12.1f}%{minutes[start]:>13.1f}"
            print(f"{start:<12}{shares}{cost}", flush=True)
            ap50[start] = 100 * found["ap50"]
            if start == "pretrained":
                figures["count_error_percent"] = round(100 * error, 1)
                figures["cpu_minutes"] = round(minutes[start], 1)
    return {
        "ap50_points": round(ap50["pretrained"], 1),
        "scratch_ap50_points": round(ap50["scratch"], 1),
        "over_scratch_points": round(ap50["pretrained"] - ap50["scratch"], 1),
        **figures,
    }


def count_error(folder: Path) -> float:
    """Mean error of the count of red cells of a test picture, as a share of those marked there."""
    recipe = load_recipe(folder / "recipe.yaml")
    model = load_model(folder)

    def found(split: str) -> Detections:
        samples = open_split(recipe.data, split)  # type: ignore[arg-type]
        item = DetectEvaluation(classes=[_COUNTED], most=200)
        return detect_split(model, samples, item, workers=0)

    val, test = found("val"), found("test")
    thresholds = np.linspace(0.02, 0.9, 89)
    best = min(thresholds, key=lambda threshold: _error(val, float(threshold)))
    return _error(test, float(best))


def _error(found: Detections, threshold: float) -> float:
    pairs = [
        (int((one.scores >= threshold).sum()), len(boxes))
        for one, boxes in zip(found.found, found.boxes, strict=True)
    ]
    return float(np.mean([abs(told - there) / there for told, there in pairs if there]))


def _few(data: Path, folder: Path) -> Sequence[str]:
    """Overrides of a smoke run: a step on a few small pictures."""
    root = folder / "few"
    lists = root / "ImageSets" / "Main"
    lists.mkdir(parents=True)
    for name in ("Annotations", "JPEGImages"):
        (root / name).symlink_to(data / name)
    for split in ("train", "val", "test"):
        names = (data / "ImageSets" / "Main" / f"{split}.txt").read_text().splitlines()[:4]
        (lists / f"{split}.txt").write_text("\n".join(names) + "\n")
    paths = [f"data.{split}={lists / f'{split}.txt'}" for split in ("train", "val", "test")]
    return (*paths, "model.image_size=64", "optim.global_batch=4", "optim.epochs=1")
