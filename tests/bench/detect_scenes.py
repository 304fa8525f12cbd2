"""A detector of coloured shapes, asked for pairs it never saw, by words: what pretraining gives.

The start is `ptft train pretrain/scenes-dense` (its time is apart). From it and from random weights
of the same network a detector is trained on 256 pictures by one recipe, each at the rate that suits
it: of 1e-3, 2e-3, 3e-3 and 4e-3 random weights did best at the second. Both are asked for pairs of
colour and shape that neither training showed (``unseen``), and for those that it did (the pictures
it learned from). Minutes are of the CPU.
"""

import json
import tempfile
from pathlib import Path

from tests.bench._parts import cpu_minutes, ptft, ptft_beside

__all__ = ["BARS", "run"]

BARS = {
    "unseen_ap50_points": (">=", 80.0),
    "over_scratch_points": (">=", 15.0),
    "cpu_minutes": ("<=", 15.0),
}

_HERE = ("run.threads=1", "run.workers=0", "run.trackers=[]", "run.page=false")
_STARTS = {
    "pretrained": (),
    "scratch": ("init.weights=false", "optim.lr_text=null", "optim.lr=2e-3"),
}
_SMALL = (
    "optim.samples_seen=8",
    "optim.global_batch=8",
    "data.test=16",
    "evaluate.1.data.train=16",
)


def run(*, smoke: bool = False) -> dict[str, float]:
    short = ("optim.samples_seen=64", "optim.global_batch=64") if smoke else ()
    with tempfile.TemporaryDirectory() as made:
        start = Path(made) / "start"
        before = cpu_minutes()
        options = (f"run.dir={start}", "evaluate=[]", *_HERE, *short)
        ptft("train", "pretrain/scenes-dense", *options, smoke=smoke)
        return compared(start, cpu_minutes() - before, Path(made), smoke=smoke)


def compared(start: Path, pretraining: float, made: Path, *, smoke: bool) -> dict[str, float]:
    """Train from a start and from its network with random weights, and print the table.

    Args:
        start: a run of ``pretrain/scenes-dense``.
        pretraining: CPU minutes that it took.
        made: the folder of both runs.
    """
    small = _SMALL if smoke else ()
    folders = {name: made / name for name in _STARTS}
    commands = {
        name: (
            *("train", "detect/scenes-few", f"init.from={start}", f"run.dir={folders[name]}"),
            *(*_HERE, *overrides, *small),
        )
        for name, overrides in _STARTS.items()
    }
    minutes = ptft_beside(commands, smoke=smoke)
    found = {
        name: json.loads((folder / "metrics.json").read_text()) for name, folder in folders.items()
    }
    head = "".join(f"{text:>13}" for text in ("unseen AP50", "mAP", "seen AP50", "mAP"))
    print(f"{'start':<12}{head}{'CPU minutes':>13}{'before':>8}")
    for name, figures in found.items():
        shares = [figures[split][key] for split in ("unseen", "seen") for key in ("ap50", "map")]
        earlier = pretraining if name == "pretrained" else 0.0
        shown = "".join(f"{100 * share:>13.1f}" for share in shares)
        print(f"{name:<12}{shown}{minutes[name]:>13.1f}{earlier:>8.1f}", flush=True)
    unseen = {name: 100 * figures["unseen"]["ap50"] for name, figures in found.items()}
    return {
        "unseen_ap50_points": round(unseen["pretrained"], 1),
        "scratch_ap50_points": round(unseen["scratch"], 1),
        "over_scratch_points": round(unseen["pretrained"] - unseen["scratch"], 1),
        "seen_ap50_points": round(100 * found["pretrained"]["seen"]["ap50"], 1),
        "cpu_minutes": round(minutes["pretrained"], 1),
        "pretraining_cpu_minutes": round(pretraining, 1),
    }
