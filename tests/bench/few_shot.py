"""The few-shot recipe at four learning rates and five numbers of shots, beside full fine-tuning.

The start is trained here on three styles of emoji with captions that name their groups; the targets
are two styles that it never saw, and what is measured are concepts that it never saw (val and test
together: nothing is chosen on either). Each figure is a mean over styles and seeds, and each seed
draws its own pictures. The same start and pictures, fully fine-tuned for 20 passes at the same
rates, are the contrast.
"""

import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean

import torch

from ptft.recipe import load_recipe
from ptft.speech import SILENT
from ptft.train import train
from tests.bench._parts import shared_data

__all__ = ["BARS", "run"]

RATES = (1e-5, 1e-4, 1e-3, 1e-2)
SHOTS = (1, 2, 4, 8, 16)
STYLES = ("fluentflat", "fluenthc")
SEEDS = 2
BARS = {"largest spread, points": ("<=", 1.0), "least gain, points": (">=", -0.5)}

_EMOJI = "../shared/data/emoji"
_CAPTIONS = '["{name}, {keywords}", "{group}: {name}", "{group}"]'
_QUIET = ("run.threads=1", "run.workers=0", "run.trackers=[]", "run.neighbours=false")
_ADAM = "optim.optimizer=adamw"
_FULL = (
    "adapt={kind: full}",
    _ADAM,
    "optim.clip_grad_norm=1.0",
    "optim.warmup=0.1",
    "regularise=null",
    "optim.schedule=cosine",
    "optim.global_batch=8",
    "optim.stop_above=null",
    "optim.samples_seen=null",
    "optim.epochs=20",
)


@dataclass(frozen=True)
class _Size:
    """How much is measured, and on what start."""

    rates: tuple[float, ...] = RATES
    shots: tuple[int, ...] = SHOTS
    styles: tuple[str, ...] = STYLES
    seeds: int = SEEDS
    pretrained: int = 25600  # samples


_SMALL = _Size(RATES[:1], SHOTS[:1], STYLES[:1], 1, 256)


def run(*, smoke: bool = False) -> dict[str, float]:
    torch.set_num_threads(1)
    shared_data("emoji")
    size = _SMALL if smoke else _Size()
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        _run(
            "pretrain/emoji",
            folder / "start",
            f"data.captions={_CAPTIONS}",
            "evaluate=[]",
            f"optim.samples_seen={size.pretrained}",
        )
        before = {style: _zero_shot(folder, style) for style in size.styles}
        print("zero-shot", {style: round(100 * value, 1) for style, value in before.items()})
        few = _gains("the few-shot recipe", folder, before, size, ())
        full = _gains("full fine-tuning", folder, before, replace(size, seeds=1), _FULL)
    return {
        "zero-shot, %": 100 * fmean(before.values()),
        "largest spread, points": max(_spread(row) for row in few.values()),
        "least gain, points": min(gain for row in few.values() for gain in row),
        f"gain at {size.shots[-1]} shots, points": fmean(few[size.shots[-1]]),
        "full: largest spread, points": max(_spread(row) for row in full.values()),
        "full: least gain, points": min(gain for row in full.values() for gain in row),
    }


def _gains(
    what: str, folder: Path, before: dict[str, float], size: _Size, overrides: tuple[str, ...]
) -> dict[int, list[float]]:
    """Points over zero-shot by shots, in the order of the rates; rows are printed as they come."""
    print(
        f"{what + ', points over zero-shot':48}" + "".join(f"{rate:>9.0e}" for rate in size.rates)
    )
    gains = {}
    for shots in size.shots:
        row = [
            fmean(
                100 * (_accuracy(folder, style, seed, shots, rate, overrides) - before[style])
                for style in size.styles
                for seed in range(size.seeds)
            )
            for rate in size.rates
        ]
        cells = "".join(f"{gain:+9.2f}" for gain in row)
        print(f"{f'{shots} a class':48}{cells}   spread {_spread(row):.2f}", flush=True)
        gains[shots] = row
    return gains


def _accuracy(
    folder: Path, style: str, seed: int, shots: int, rate: float, overrides: tuple[str, ...]
) -> float:
    return _run(
        "finetune/few-shot-emoji",
        folder / "run",
        f"init.from={folder / 'start'}",
        f"run.cache={folder / 'cache'}",
        *_data(style),
        f"data.shots={shots}",
        f"seed={seed}",
        f"optim.lr={rate}",
        f"optim.global_batch={8 * shots}",  # all of them, as in the recipe, and its 100 steps
        f"optim.samples_seen={800 * shots}",
        *overrides,
    )


def _zero_shot(folder: Path, style: str) -> float:
    """Of the start, through a run that learns nothing to speak of: one sample at a tiny rate."""
    return _accuracy(folder, style, 0, 1, 1e-12, (_ADAM, "optim.samples_seen=8"))


def _run(name: str, folder: Path, *overrides: str) -> float:
    """Train, and give the accuracy over the evaluations' pictures together."""
    shutil.rmtree(folder, ignore_errors=True)
    recipe = load_recipe(name, [f"run.dir={folder}", *_QUIET, *overrides])
    found = train(recipe, log=SILENT).metrics.values()
    images = sum(one["images"] for one in found)
    return sum(one["top1"] * one["images"] for one in found) / images if images else 0.0


def _data(style: str) -> Iterator[str]:
    for split in ("train", "val", "test"):
        yield f"data.{split}={_EMOJI}/{style}/{split}-*.tar"
    parts = ", ".join(
        f"{{kind: classify, name: {split}, split: {split}}}" for split in ("val", "test")
    )
    yield f"evaluate=[{parts}]"


def _spread(row: list[float]) -> float:
    return max(row) - min(row)
