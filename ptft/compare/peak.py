"""The most memory that training takes, measured on a run of two steps.

A process's peak only ever grows, and what an evaluation or a training before has freed hides what
the next one takes. So it is measured once for each arm and budget, as the first thing that the
job's own process does; no other arm, order or trial moves it.
"""

import shutil
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import torch

from ptft.errors import ModelError, TrainingError
from ptft.recipe import Recipe
from ptft.speech import SILENT
from ptft.train import train
from ptft.train.setup import choose_device

__all__ = ["peak_bytes", "training_peak"]

_STEPS = 2  # the optimiser's state comes with the first


def training_peak(recipes: Sequence[Recipe]) -> int:
    """Bytes that runs of two steps take at most, one after the other, beyond what this process
    holds now; on a GPU the GPU's.

    Args:
        recipes: in whose ``run.dir`` the runs lie, anew. One that explodes takes what it takes.

    Raises:
        DataError, RecipeError: as training would.
    """
    device = choose_device(recipes[0].run)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        for recipe in recipes:
            _run(recipe)
        return torch.cuda.max_memory_allocated(device) - before
    with suppress(OSError):  # Linux: from here on the peak is what is held now
        Path("/proc/self/clear_refs").write_text("5")
    before = peak_bytes()
    for recipe in recipes:
        _run(recipe)
    return max(0, peak_bytes() - before)


def _run(recipe: Recipe) -> None:
    short = _STEPS * recipe.optim.global_batch
    optim = recipe.optim.model_copy(
        update={"samples_seen": min(short, recipe.optim.samples_seen or short), "epochs": None}
    )
    if recipe.run.dir is not None:
        shutil.rmtree(recipe.run.dir, ignore_errors=True)
    with suppress(TrainingError, ModelError):  # the arm's own training will say so
        train(recipe.model_copy(update={"optim": optim}), record=False, log=SILENT)


def peak_bytes() -> int:
    """Bytes that this process held at most; 0 on a system that does not tell (Windows)."""
    with suppress(OSError):  # Linux: what getrusage says is never below a parent's
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return 1024 * int(line.split()[1])
    try:
        import resource
    except ImportError:
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # macOS counts bytes
