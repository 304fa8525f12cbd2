"""CPU-seconds of a training step against open_clip_train's, on one thread.

Same weights, batches, loss, AdamW and precision (fp32, the faster one for both on a CPU without
matrix units for bf16); captions of 8 to 12 tokens. Steps alternate in one process; a ratio is the
median over pairs of neighbouring steps, since others may use the machine too.
"""

from statistics import median
from typing import Any

from tests.bench._parts import apart
from tests.bench._peer import in_turn, make_recipe

SIZES = {"ViT-S-32": (16, 10), "ViT-B-32": (8, 8), "ViT-B-16": (4, 6)}  # batch, steps
BARS = {
    "ViT-S-32": (">=", 2.0),
    "ViT-B-32": (">=", 1.7),
    "ViT-B-16": (">=", 1.2),
    "loss_difference": ("<=", 1e-3),
}


def run(*, smoke: bool = False) -> dict[str, float]:
    sizes = {"ViT-S-32": (2, 3)} if smoke else SIZES
    print(f"{'model':<10}{'batch':>6}{'open_clip s':>13}{'ptft s':>9}{'ratio':>8}{'loss diff':>11}")
    figures: dict[str, float] = {}
    worst = 0.0
    for name, (batch, steps) in sizes.items():
        found = apart(_one, name, batch, steps)
        seconds = {whose: median(steps) for whose, steps in found["seconds"].items()}
        turns = zip(found["seconds"]["open_clip"], found["seconds"]["ptft"], strict=True)
        ratio = median(theirs / ours for theirs, ours in turns)
        pairs = zip(found["losses"]["ptft"], found["losses"]["open_clip"], strict=True)
        difference = max(abs(ours / theirs - 1) for ours, theirs in pairs)
        worst = max(worst, difference)
        figures[name] = round(ratio, 3)
        print(
            f"{name:<10}{batch:>6}{seconds['open_clip']:>13.3f}{seconds['ptft']:>9.3f}"
            f"{ratio:>8.2f}{difference:>11.1e}",
            flush=True,
        )
    return {**figures, "loss_difference": float(f"{worst:.2g}")}


def _one(name: str, batch: int, steps: int) -> dict[str, Any]:
    return in_turn(make_recipe(name, batch), steps)
