"""Four styles of emoji in sequence: what plain fine-tuning forgets, and the default guard.

The start learns two styles, which the guard may replay; four it has never seen follow, the hardest
shift (black on white) first. ``transfer loss`` is ZSCL's: by how much styles that are still to come
fall below the start's own figure, on average (there 69.4 to 44.6 by plain fine-tuning over 11 sets,
to 68.1 guarded). All minutes are of the CPU.
"""

import json
import tempfile
from pathlib import Path

import yaml

from tests.bench._parts import cpu_minutes, ptft, shared_data

__all__ = ["BARS", "run"]

BARS = {
    "transfer_loss_points": ("<=", 1.3),
    "last_style_over_plain_points": (">=", 0.0),
    "cpu_minutes": ("<=", 20.0),
}

_NAME = "finetune/emoji-continual"
_STYLES = "data.train=../shared/data/emoji/{noto,fluent3d}/train-*.tar"
_HERE = ("run.threads=1", "run.workers=0", "run.trackers=[]", "run.neighbours=false")
_WAYS = {"plain": ("guard=null",), "guarded": ()}


def run(*, smoke: bool = False) -> dict[str, float]:
    shared_data("emoji")
    samples, small = (256, _small()) if smoke else (25600, ())
    before = cpu_minutes()
    found = {}
    with tempfile.TemporaryDirectory() as made:
        start = Path(made) / "start"
        pretraining = (f"optim.samples_seen={samples}", "evaluate=[]", f"run.dir={start}")
        ptft("train", "pretrain/emoji", _STYLES, *pretraining, *_HERE, smoke=smoke)
        for way, overrides in _WAYS.items():
            folder = Path(made) / way
            options = (f"init.from={start}", f"run.dir={folder}", *_HERE, *small, *overrides)
            ptft("train", _NAME, *options, smoke=smoke)
            print(f"{way}\n\n{(folder / 'stages.md').read_text()}", flush=True)
            found[way] = json.loads((folder / "stages.json").read_text())
    last = list(found["plain"]["rows"])[-1]
    by_way = {way: one["rows"][last][last] for way, one in found.items()}
    summaries = {way: one["summary"] for way, one in found.items()}
    return {
        "transfer_loss_points": _points(summaries["guarded"]["transfer_loss"]),
        "plain_transfer_loss_points": _points(summaries["plain"]["transfer_loss"]),
        "backward_loss_points": _points(summaries["guarded"]["backward_loss"]),
        "plain_backward_loss_points": _points(summaries["plain"]["backward_loss"]),
        "last_style_over_plain_points": _points(by_way["guarded"] - by_way["plain"]),
        "cpu_minutes": round(cpu_minutes() - before, 1),
    }


def _small() -> tuple[str, ...]:
    """Overrides of a smoke run: a step on each of the first two styles."""
    path = Path(__file__).parents[2] / "recipes" / f"{_NAME}.yaml"
    stages = json.dumps(yaml.safe_load(path.read_text())["stages"][:2])
    return (f"stages={stages}", "evaluate=[]", "optim.samples_seen=64", "optim.global_batch=64")


def _points(share: float) -> float:
    return round(100 * share, 2)
