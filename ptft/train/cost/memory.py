"""How much memory a step of a recipe needs, measured on two samples and scaled to its batch."""

from typing import Any

import torch

from ptft.model import layer_depths
from ptft.optim import build_optimizer, total_samples
from ptft.recipe import AdapterSection, ClassifyObjective, Recipe
from ptft.tiled import TILE
from ptft.train.batches import batches
from ptft.train.gradients import Step
from ptft.train.parallel import alone
from ptft.train.setup import Setup, set_up

__all__ = ["predict_memory"]

_FLOAT = 4  # bytes of a float32
_ADAM_MOMENTS = 2
_TEMPORARY = 0.6  # of what autograd keeps: gradients on their way, copies in a kernel's own layout
_PROCESS = 192 << 20  # bytes: libraries that a run loads late, kernels' scratch, heap between uses
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
        merged, the process itself, and their sum.

    Raises:
        DataError, ModelError, RecipeError: as training would.
    """
    setup = set_up(recipe, torch.device("cpu"))
    model = setup.model.train()
    depths = layer_depths(model) if recipe.optim.layer_decay is not None else None
    if setup.steps:
        build_optimizer(model, recipe.optim, depths=depths)  # it may refuse what it is given
    kept = _kept(recipe, setup) if setup.steps else 0
    size = recipe.optim.global_batch
    every = _numbers(model)
    learning = sum(p.numel() for p in model.parameters() if p.requires_grad)
    at_once = recipe.optim.micro_batch or size
    classify = isinstance(recipe.objective, ClassifyObjective)
    pairs = 0 if classify else _loss_numbers(size, model.spec.embed_dim) * _FLOAT
    activations = kept * at_once + pairs
    merges = isinstance(recipe.adapt, AdapterSection)
    parts = {
        "weights": every * _FLOAT,
        "gradients_and_optimizer": learning * _FLOAT * (1 + _ADAM_MOMENTS),
        "average": learning * _FLOAT if recipe.optim.ema is not None else 0,
        "best": learning * _FLOAT if recipe.stops_early is not None else 0,
        "start": learning * _FLOAT if recipe.regularise is not None else 0,
        "teacher": 0 if setup.teacher is None else _FLOAT * _numbers(setup.teacher.model),
        "activations": activations,
        "temporary": int(_TEMPORARY * activations),
        "merged": _MERGED * every * _FLOAT if merges else 0,
        "process": _PROCESS,
    }
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
    }


def _kept(recipe: Recipe, setup: Setup) -> int:
    """Bytes that autograd keeps of one sample for the backward pass, counted on a step of two."""
    batch = next(iter(batches(recipe, setup, start=0, end=2, size=2, workers=0)))
    two = {"precision": "fp32", "global_batch": 2, "micro_batch": None}
    optim = recipe.optim.model_copy(update=two)
    step = Step(recipe.objective, optim, alone(setup.model), teacher=setup.teacher)
    parameters = {p.data_ptr() for p in setup.model.parameters()}
    kept: dict[int, int] = {}

    def count(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in parameters:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
        step(batch)
    setup.model.zero_grad(set_to_none=True)
    return sum(kept.values()) // 2


def _loss_numbers(size: int, width: int) -> int:
    """Embeddings of both towers with gradients; a tile of logits, and three of its size."""
    return 4 * size * width + 4 * min(size * size, TILE)


def _numbers(model: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())
