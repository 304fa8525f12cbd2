"""How much memory a step of a recipe needs, measured on two samples and scaled to its batch."""

from typing import Any

import torch

from ptft.model import layer_depths
from ptft.optim import build_optimizer, total_samples
from ptft.recipe import AdapterSection, ClassifyObjective, Recipe
from ptft.tiled import TILE
from ptft.train.cost.count import StepCount, count_step
from ptft.train.setup import Setup, set_up

__all__ = ["memory_parts", "predict_memory"]

_FLOAT = 4  # bytes of a float32
_ADAM_MOMENTS = 2
_TEMPORARY = 0.6  # of what autograd keeps: gradients on their way, copies in a kernel's own layout
_PROCESS = 192 << 20  # bytes: libraries that a run loads late, kernels' scratch, heap between uses
_MOMENT = 0.17  # of what autograd keeps: for moments, as it most likely is; with convolutions
_CONVOLVED = 0.65  # more, times their share of the arithmetic
_USUAL_PROCESS = 133 << 20  # bytes; these three as `python -m tests.bench predict` holds them
_MERGED = 3  # copies of the weights while an adapter is merged, saved and held against itself


def predict_memory(recipe: Recipe) -> dict[str, Any]:
    """Build the model, run two samples, and predict by how many bytes a process grows in fp32: an
    upper bound, which on a CPU was 1.02 to 1.5 times what convolutions, transformers, micro batches
    and adapters took. Processes that load data come on top.

    Optimisers are counted as AdamW, with two moments a weight; lion and muon keep one.

    What autograd keeps for the backward pass is counted as it is saved, so the figure holds for
    any architecture; embeddings of the batch, their gradients and the loss's tiles are added. What
    a backward pass needs for moments is a share of that, and what a process needs besides is fixed;
    both are as measured (``tests/train/test_memory.py``).

    Returns:
        Samples of the training set, parameters (all and learning), and GiB for weights, gradients
        with optimiser state, the average of the weights, the best ones, the start that they are
        held to, the teacher, activations, what is needed for moments, copies in which an adapter is
        merged, the copy that a checkpoint is written from beside the steps (none where the last
        step's is the only one), the process itself, and their sum; and ``expected_gib``, no bound
        but what a process most likely grows by.

    Raises:
        DataError, ModelError, RecipeError: as training would.
    """
    setup = set_up(recipe, torch.device("cpu"))
    model = setup.model.train()
    depths = layer_depths(model) if recipe.optim.layer_decay is not None else None
    if setup.steps:
        build_optimizer(model, recipe.optim, depths=depths)  # it may refuse what it is given
    count = count_step(recipe, setup) if setup.steps else StepCount(0, 0.0, 0.0, 0.0)
    size = recipe.optim.global_batch
    parts = memory_parts(recipe, setup, count.kept, recipe.optim.micro_batch or size)
    every = _numbers(model)
    learning = sum(p.numel() for p in model.parameters() if p.requires_grad)
    return {
        "samples": len(setup.samples),
        "steps": total_samples(recipe.optim, len(setup.samples)) // size if setup.steps else 0,
        "parameters": every,
        "learning": learning,
        "learns": setup.learns,
        "gib": {
            **{name: round(value / 2**30, 3) for name, value in parts.items()},
            "total": round(sum(parts.values()) / 2**30, 3),
        },
        "expected_gib": round(_expected(parts, count.convolutions) / 2**30, 3),
    }


def memory_parts(recipe: Recipe, setup: Setup, kept: int, at_once: int) -> dict[str, int]:
    """Bytes by what they are for.

    Args:
        kept: for the backward pass of one sample (:func:`ptft.train.cost.count.count_step`).
        at_once: samples that are forwarded together.
    """
    model, size = setup.model, recipe.optim.global_batch
    every = _numbers(model)
    learning = sum(p.numel() for p in model.parameters() if p.requires_grad)
    classify = isinstance(recipe.objective, ClassifyObjective)
    pairs = 0 if classify else _loss_numbers(size, model.spec.embed_dim) * _FLOAT
    activations = kept * at_once + pairs
    merges = isinstance(recipe.adapt, AdapterSection)
    average = learning * _FLOAT if recipe.optim.ema is not None else 0
    best = learning * _FLOAT if recipe.stops_early is not None else 0
    moments = learning * _FLOAT * _ADAM_MOMENTS
    return {
        "weights": every * _FLOAT,
        "gradients_and_optimizer": learning * _FLOAT + moments,
        "average": average,
        "best": best,
        "start": learning * _FLOAT if recipe.regularise is not None else 0,
        "teacher": 0 if setup.teacher is None else _FLOAT * _numbers(setup.teacher.model),
        "activations": activations,
        "temporary": int(_TEMPORARY * activations),
        "merged": _MERGED * every * _FLOAT if merges else 0,
        "checkpoint": every * _FLOAT + moments + average + best if _copies(recipe, setup) else 0,
        "process": _PROCESS,
    }


def _copies(recipe: Recipe, setup: Setup) -> bool:
    """Whether a checkpoint is written beside the steps; for that of the last one the run waits."""
    if not setup.steps:
        return False
    steps = total_samples(recipe.optim, len(setup.samples)) // recipe.optim.global_batch
    return recipe.run.checkpoint_every < steps


def _expected(parts: dict[str, int], convolutions: float) -> float:
    """Bytes that a process grows by, most likely: gradients come as activations go, so that of both
    the larger counts, and convolutions need more room for moments than matrices.

    Args:
        convolutions: their share of the arithmetic.
    """
    gradients = parts["gradients_and_optimizer"] / (1 + _ADAM_MOMENTS)
    share = _MOMENT + _CONVOLVED * convolutions
    largest = max(parts["activations"] * (1 + share), gradients)
    left = ("activations", "temporary", "process")
    rest = sum(value for name, value in parts.items() if name not in left) - gradients
    return rest + largest + _USUAL_PROCESS


def _loss_numbers(size: int, width: int) -> int:
    """Embeddings of both towers with gradients; a tile of logits, and three of its size."""
    return 4 * size * width + 4 * min(size * size, TILE)


def _numbers(model: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())
