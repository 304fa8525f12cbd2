"""Pairs of one caption as positives, against plain InfoNCE, on ten classes at batch 256.

1. Where no caption repeats the two are one loss: the largest difference of loss and gradients, at
   256 pairs and at 4,096 in tiles.
2. Hands that show digits (1,543 real photographs, the class's name as the caption), a small model
   from scratch, the same seeds and batches with ``multi_positive`` and without: zero-shot accuracy
   on the test set, and a bootstrap interval of the paired difference over the seeds. Clothes
   (Fashion-MNIST, 2,500 pictures) are shown beside it.
"""

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from ptft.objective import TILED_FROM, clip_loss
from ptft.recipe.load import parse_recipe
from ptft.speech import SILENT
from ptft.train import train
from tests.bench._parts import shared_data

__all__ = ["BARS", "run"]

SETS = ("sign_digits", "fashion_mnist")
SEEDS, SAMPLES = 8, 15360
BARS = {
    "difference where no caption repeats": ("<=", 1e-6),
    "sign_digits: low end of the gain, points": (">=", 0.0),
}


def run(*, smoke: bool = False) -> dict[str, float]:
    torch.set_num_threads(1)
    shared_data(*SETS)
    sets, seeds, samples = (SETS[:1], 1, 256) if smoke else (SETS, SEEDS, SAMPLES)
    figures = {"difference where no caption repeats": max(_difference(n) for n in (256, 4096))}
    print(f"{'':16}{'plain':>9}{'multi':>9}{'gain':>9}   95 % interval over {seeds} seeds, points")
    for name in sets:
        plain, multi = (
            np.array([100 * _accuracy(name, seed, samples, wanted) for seed in range(seeds)])
            for wanted in (False, True)
        )
        low, high = _interval(multi - plain)
        gain = float((multi - plain).mean())
        print(
            f"{name:16}{plain.mean():9.2f}{multi.mean():9.2f}{gain:+9.2f}   {low:+.2f} {high:+.2f}"
        )
        figures |= {
            f"{name}: plain, %": float(plain.mean()),
            f"{name}: gain, points": gain,
            f"{name}: low end of the gain, points": low,
        }
    return figures


def _difference(pairs: int) -> float:
    """Of loss and gradients, with captions that all differ and without captions."""
    assert pairs == 256 or pairs > TILED_FROM
    generator = torch.Generator().manual_seed(0)
    found = []
    features = [F.normalize(torch.randn(pairs, 64, generator=generator), dim=-1) for _ in "it"]
    for ids in (None, torch.arange(pairs)):
        leaves = [part.clone().requires_grad_() for part in (*features, torch.tensor([14.0]))]
        loss = clip_loss(*leaves, caption_ids=ids)
        found.append([loss.detach(), *torch.autograd.grad(loss, leaves)])
    return max(float((one - other).abs().max()) for one, other in zip(*found, strict=True))


def _accuracy(name: str, seed: int, samples: int, multi_positive: bool) -> float:
    data, templates = f"../shared/data/{name}", ["a photo of {}."]
    with tempfile.TemporaryDirectory() as made:
        values: dict[str, Any] = {
            "name": name,
            "seed": seed,
            "model": {
                "image": "test_resnet",
                "image_size": 32,
                "embed_dim": 64,
                "text": {"width": 64, "layers": 1, "heads": 2, "context_length": 16},
            },
            "data": {
                "kind": "shards",
                "train": f"{data}/train-*.tar",
                "test": f"{data}/test-*.tar",
                "classes": f"{data}/classes.json",
            },
            "objective": {"kind": "clip", "multi_positive": multi_positive, "templates": templates},
            "optim": {
                "lr": 2e-3,
                "global_batch": 256,
                "samples_seen": samples,
                "precision": "fp32",
                "stop_above": None,
            },
            "evaluate": [{"kind": "zero_shot", "templates": templates, "split": "test"}],
            "run": {
                "dir": str(Path(made) / "run"),
                "workers": 0,
                "threads": 1,
                "trackers": [],
                "neighbours": False,
            },
        }
        recipe = parse_recipe(values, where=name)
        metrics = train(recipe, log=SILENT).metrics
    return float(metrics["zero_shot"]["top1"])


def _interval(differences: np.ndarray) -> tuple[float, float]:
    """Of the mean, by resampling the seeds."""
    rng = np.random.default_rng(0)
    means = rng.choice(differences, (10_000, len(differences))).mean(axis=1)
    low, high = np.percentile(means, (2.5, 97.5))
    return float(low), float(high)
