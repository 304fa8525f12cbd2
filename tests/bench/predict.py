"""What ``ptft check`` predicts against what was measured: memory here, speed by published runs.

Memory: six recipes are trained on the CPU, each in a process of its own that tells by how much it
grew at most, against ``expected_gib`` (and the upper bound). Speed: each published run of
``ptft/train/cost/published.yaml`` is predicted from the others, its arithmetic counted anew.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

BARS = {
    "memory_within_15_percent": (">=", 6),
    "memory_above_bound": ("<=", 0),
    "times_within_30_percent": (">=", 5),
    "worst_gflop_percent": ("<=", 1.0),
    "h100_over_a100_percent_off": ("<=", 30.0),
}

_TEXT = {"width": 192, "layers": 4, "heads": 4, "context_length": 32}
_VIT = {"image": "vit_tiny_patch16_224", "image_size": 96, "text": _TEXT, "embed_dim": 128}
_RECIPES: dict[str, tuple[int, dict[str, Any]]] = {
    "transformer": (64, {"model": _VIT}),
    "convolutions": (64, {"model": {**_VIT, "image": "resnet18"}}),
    "large batch": (256, {"model": _VIT}),
    "micro batches": (64, {"model": _VIT, "optim": {"micro_batch": 16}}),
    "adapter": (64, {"model": _VIT, "adapt": {"kind": "lora"}}),
    "ViT-B-32": (32, {"model": {"name": "ViT-B-32"}}),
}


def run(*, smoke: bool = False) -> dict[str, float]:
    return {**_memory(smoke=smoke), **_times(smoke=smoke)}


def _memory(*, smoke: bool) -> dict[str, float]:
    from ptft.recipe.load import parse_recipe
    from ptft.train import predict_memory

    print(f"{'recipe':<14} {'grew':>7} {'expected':>9} {'off':>6} {'bound':>7}  GiB")
    off, above = [], 0
    for name, (batch, changes) in list(_RECIPES.items())[: 1 if smoke else None]:
        with tempfile.TemporaryDirectory() as folder:
            values = _values(Path(folder) / "run", 4 if smoke else batch, changes)
            done = subprocess.run(
                [sys.executable, "-m", "tests.support.memory_run"],
                input=json.dumps(values),
                stdout=subprocess.PIPE,
                text=True,
                check=True,
            )
            grew = int(done.stdout) / 2**30
            told = predict_memory(parse_recipe(values, name))
        expected, bound = told["expected_gib"], told["gib"]["total"]
        off.append(100 * abs(expected / grew - 1))
        above += grew > bound
        print(f"{name:<14} {grew:7.3f} {expected:9.3f} {off[-1]:5.0f}% {bound:7.3f}", flush=True)
    return {
        "memory_recipes": len(off),
        "memory_within_15_percent": sum(one <= 15 for one in off),
        "memory_worst_percent": round(max(off), 1),
        "memory_above_bound": above,
    }


def _values(folder: Path, batch: int, changes: dict[str, Any]) -> dict[str, Any]:
    optim = {"samples_seen": 3 * batch, "global_batch": batch, "precision": "fp32"}
    return {
        "name": "mine",
        "data": {"kind": "scenes", "size": 96, "train": 4 * batch, "val": 16, "test": 16},
        "run": {"dir": str(folder), "workers": 0, "page": False, "trackers": [], "threads": 1},
        **changes,
        "optim": {**optim, **changes.get("optim", {})},
    }


def _times(*, smoke: bool) -> dict[str, float]:
    from ptft.cards import known_cards
    from ptft.train.cost.speed import SOURCES, card_speed, published_runs

    archs = sorted({one.arch for one in published_runs()})
    counted = {arch: _gflop(arch) for arch in archs[: 1 if smoke else None]}
    print(f"\n{'published run':<28} {'card':<8} {'GPUs':>5} {'samples/s':>10} {'predicted':>10}")
    within, shares = 0, []
    for one in published_runs():
        gflop = counted.get(one.arch, one.gflop)
        speed = card_speed(known_cards()[one.card], without=one)
        predicted = one.gpus * speed.flops / (1e9 * gflop)
        share = predicted / one.samples_per_second
        shares.append(share)
        within += abs(share - 1) <= 0.3
        print(
            f"{one.run:<28} {one.card:<8} {one.gpus:>5} {one.samples_per_second:>10,.0f} "
            f"{predicted:>10,.0f} {share:>6.2f}  {one.software}, {one.source}"
        )
    for name, source in SOURCES.items():
        print(f"{name}: {source}")
    nodes = {one.card: one for one in published_runs() if one.software == "nemo"}
    gain = nodes["h100"].samples_per_second / nodes["a100-80"].samples_per_second
    flops = [card_speed(known_cards()[card]).flops for card in ("h100", "a100-80")]
    print(f"H100 over A100 80 GB: published {gain:.2f}, predicted {flops[0] / flops[1]:.2f}")
    worst = max(
        abs(counted[one.arch] / one.gflop - 1) for one in published_runs() if one.arch in counted
    )
    return {
        "published": len(shares),
        "times_within_30_percent": within,
        "times_median_percent_off": round(100 * median(abs(one - 1) for one in shares), 1),
        "worst_gflop_percent": round(100 * worst, 2),
        "h100_over_a100_percent_off": round(100 * abs(flops[0] / flops[1] / gain - 1), 1),
    }


def _gflop(arch: str) -> float:
    """Of a sample's step with 77 tokens, on tensors without memory."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from ptft.compat import import_open_clip

    open_clip = import_open_clip()
    config = open_clip.get_model_config(arch)
    with torch.device("meta"):
        model = open_clip.model.CLIP(**config).train()
        images = torch.empty(2, 3, *[config["vision_cfg"]["image_size"]] * 2)
        texts = torch.zeros(2, 77, dtype=torch.long)
        with FlopCounterMode(display=False) as counter:
            image, text, *_ = model(images, texts)
            (image @ text.T).sum().backward()
    return counter.get_total_flops() / 2e9
