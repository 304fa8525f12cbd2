"""CPU-seconds of a step with a locked image tower whose features are kept, against open_clip_train.

open_clip's side is its ``--lock-image --lock-image-unlocked-groups 1``: the tower is locked and its
projection learns, as here; it runs the tower on every picture of every step. Same weights, batches,
loss, AdamW and precision; ViT-S-32, captions of 8 to 12 tokens, one thread, steps in turn. What the
kept features cost once, a forward pass of each picture, is printed beside it.
"""

import time
from dataclasses import replace
from statistics import median
from typing import Any

import torch

from ptft.data import Batch, KeptFeatures
from tests.bench._parts import apart
from tests.bench._peer import in_turn, make_recipe

NAME, BATCH, STEPS = "ViT-S-32", 16, 12
BARS = {"ratio": (">=", 8.0), "loss_difference": ("<=", 1e-3)}


def run(*, smoke: bool = False) -> dict[str, float]:
    batch, steps = (2, 3) if smoke else (BATCH, STEPS)
    found = apart(_one, batch, steps)
    seconds = {whose: median(steps) for whose, steps in found["seconds"].items()}
    turns = zip(found["seconds"]["open_clip"], found["seconds"]["ptft"], strict=True)
    ratio = median(theirs / ours for theirs, ours in turns)
    pairs = zip(found["losses"]["ptft"], found["losses"]["open_clip"], strict=True)
    difference = max(abs(ours / theirs - 1) for ours, theirs in pairs)
    once = found["once"]
    print(f"{NAME}, batch {batch}: CPU-seconds a step, the image tower locked")
    print(f"  open_clip_train   {seconds['open_clip']:.3f}")
    print(f"  ptft, kept        {seconds['ptft']:.3f}   ratio {ratio:.2f}")
    print(f"  and once for all passes: {once:.3f} a batch")
    print(f"  largest difference of a loss: {difference:.1e}")
    return {
        "ratio": round(ratio, 3),
        "loss_difference": float(f"{difference:.2g}"),
        "once_per_batch_s": round(once, 3),
    }


def _one(batch: int, steps: int) -> dict[str, Any]:
    once: list[float] = []

    @torch.no_grad()
    def keep(model: Any, batch: Batch) -> Batch:
        started = time.process_time()
        features = model.eval().image_trunk(model.normalise(batch.images))
        once.append(time.process_time() - started)
        return replace(batch, images=KeptFeatures(features))

    recipe = make_recipe(NAME, batch, adapt={"kind": "full", "lock": ["image"]})
    return {**in_turn(recipe, steps, prepare=keep), "once": median(once)}
