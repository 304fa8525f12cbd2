"""A detector of blood cells from 205 pictures: what pretraining on ImageNet gives, and the count.

Two starts by one recipe: the pretrained MobileNetV2, and the same network with random weights (its
batch norms learn then, and it learns at the rate of the head). What counts was chosen on validation
(``objective.count``); the error is the mean over the test pictures that have red cells marked, as a
share of these. Beside it stand the cells told and marked in all 72. Minutes are of the CPU.
"""

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path

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
        print(f"{'count error':>13}{'told':>6}{'marked':>8}{'CPU minutes':>13}")
        for start, folder in folders.items():
            found = json.loads((folder / "metrics.json").read_text())["test"]
            error = found["count_error_by_class"][_COUNTED]
            of_class = [found["ap50_by_class"].get(name, 0.0) for name in _CLASSES]
            shares = "".join(f"{100 * v:>7.1f}" for v in (found["ap50"], found["map"], *of_class))
            told, marked = (found[key][_COUNTED] for key in ("counted_by_class", "marked_by_class"))
            cost = f"{100 * error:>12.1f}%{told:>6}{marked:>8}{minutes[start]:>13.1f}"
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
