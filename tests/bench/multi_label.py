"""Several classes a picture: what tuning gives over class names, and thresholds over a half.

A start learns scenes by captions (a third of `pretrain/scenes`, its time is apart). Asked for the
colours and shapes of scenes by their names it has an mAP; `multi_label.yaml` is then trained
from it. Thresholds are chosen on val; all figures are of test, whose pairs of colour and shape no
training shows, and are held against scikit-learn's of what the model gives there.
"""

import json
import tempfile
from pathlib import Path

import numpy as np
from sklearn.metrics import average_precision_score, f1_score

from ptft.data import open_split
from ptft.evaluate.embed import embed_split
from ptft.evaluate.label_scores import label_figures, score_labels
from ptft.model import load_model
from ptft.recipe import ClassifyEvaluation
from ptft.recipe.load import load_recipe
from tests.bench._parts import cpu_minutes, ptft

__all__ = ["BARS", "run"]

BARS = {
    "map_points": (">=", 70.0),
    "over_names_points": (">=", 10.0),
    "micro_f1_over_even_points": (">=", 0.5),
    "macro_f1_over_even_points": (">=", 0.5),
    "from_sklearn": ("<=", 1e-9),
    "cpu_minutes": ("<=", 5.0),
}

_HERE = ("run.threads=1", "run.workers=0", "run.trackers=[]", "run.page=false")
_RECIPE = Path(__file__).with_suffix(".yaml")
_THIRD = ("optim.samples_seen=20480", "evaluate=[]")
_SMALL = (
    *("data.train=64", "data.val=16", "data.test=16"),
    *("optim.samples_seen=64", "optim.global_batch=64"),
)


def run(*, smoke: bool = False) -> dict[str, float]:
    small = _SMALL if smoke else ()
    with tempfile.TemporaryDirectory() as made:
        start = Path(made) / "start"
        before = cpu_minutes()
        ptft("train", "pretrain/scenes", f"run.dir={start}", *_HERE, *_THIRD, *small, smoke=smoke)
        pretraining = cpu_minutes() - before
        folder, before = Path(made) / "tuned", cpu_minutes()
        options = (f"init.from={start}", f"run.dir={folder}", *_HERE, *small)
        ptft("train", _RECIPE, *options, smoke=smoke)
        tuning = cpu_minutes() - before
        test = json.loads((folder / "metrics.json").read_text())["test"]
        names = _names(start, Path(made), small, smoke=smoke)
        apart = _from_sklearn(folder)
    columns = ("map", "micro_f1", "micro_f1_even", "macro_f1", "macro_f1_even", "top1", "ece")
    print(f"{'':<14}" + "".join(f"{name:>15}" for name in columns) + f"{'CPU minutes':>13}")
    print(f"{'class names':<14}{100 * names:>15.1f}")
    shown = "".join(f"{100 * test[key]:>15.1f}" for key in columns)
    print(f"{'tuned':<14}{shown}{tuning:>13.1f}")
    gained = {key: 100 * (test[key] - test[f"{key}_even"]) for key in ("micro_f1", "macro_f1")}
    return {
        "map_points": round(100 * test["map"], 1),
        "names_map_points": round(100 * names, 1),
        "over_names_points": round(100 * (test["map"] - names), 1),
        "chance_map_points": round(100 * test["map_chance"], 1),
        "micro_f1_over_even_points": round(gained["micro_f1"], 2),
        "macro_f1_over_even_points": round(gained["macro_f1"], 2),
        "from_sklearn": apart,
        "cpu_minutes": round(tuning, 1),
        "pretraining_cpu_minutes": round(pretraining, 1),
    }


def _names(start: Path, made: Path, small: tuple[str, ...], *, smoke: bool) -> float:
    """The mAP of the start on test, asked by class names."""
    path = made / "names.json"
    asked = ("--recipe", _RECIPE, "-o", path)
    items = 'evaluate=[{"kind":"zero_shot","split":"test","templates":["a {}","a {} thing"]}]'
    ptft("evaluate", start, *asked, items, *small[:3], smoke=smoke)
    return float(json.loads(path.read_text())["zero_shot"]["map"])


def _from_sklearn(folder: Path) -> float:
    """The largest difference of the tuned model's figures on test from scikit-learn's."""
    recipe, model = load_recipe(folder / "recipe.yaml"), load_model(folder)
    samples = open_split(recipe.data, "test", seed=recipe.seed)
    found = embed_split(model, samples, batch=256, workers=0)
    scores = score_labels(model, ClassifyEvaluation(), found, split="test")
    ours = label_figures(scores)
    has, sure = scores.has_nc.numpy(), scores.probabilities_nc.numpy()
    seen = has.any(axis=0)
    assert scores.thresholds_c is not None
    told = {"": sure >= scores.thresholds_c.numpy(), "_even": sure >= 0.5}
    theirs = {"map": average_precision_score(has[:, seen], sure[:, seen], average="macro")}
    for name, said in told.items():
        theirs[f"micro_f1{name}"] = f1_score(has, said, average="micro", zero_division=0)
        each = f1_score(has, said, average=None, zero_division=0)
        theirs[f"macro_f1{name}"] = float(np.mean(each[seen]))
    return max(abs(float(ours[key]) - float(value)) for key, value in theirs.items())
