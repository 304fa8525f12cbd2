"""Arithmetic and memory of a recipe's own step, counted on two samples of its data."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from ptft.recipe import Recipe
from ptft.train.batches import batches
from ptft.train.gradients import Step
from ptft.train.parallel import alone
from ptft.train.setup import Setup

__all__ = ["ATTENTION_FLOPS", "StepCount", "count_step"]


@dataclass(frozen=True)
class StepCount:
    """What one sample of a step takes.

    Attributes:
        kept: bytes that autograd keeps for the backward pass.
        forward: multiplications and additions of the forward pass.
        flops: of forward and backward.
        convolutions: their share of the arithmetic.
    """

    kept: int
    forward: float
    flops: float
    convolutions: float


def _attention(query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
    """Of q k^T and of the weights by v; shapes (B, heads, L, D)."""
    batch, heads, length, width = query
    return 2 * batch * heads * length * key[-2] * (width + value[-1])


def _attention_backward(grad: Any, query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
    return 2 * _attention(query, key, value)


ATTENTION_FLOPS: dict[Any, Callable[..., int]] = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward,
}
"""What torch's own counter leaves out: attention as a CPU computes it."""


def count_step(recipe: Recipe, setup: Setup, *, precision: str = "fp32") -> StepCount:
    """Run a step of two samples, and count.

    Args:
        precision: that the towers run in, ``fp32`` or ``bf16``.
    """
    batch = next(iter(batches(recipe, setup, start=0, end=2, size=2, workers=0)))
    two = {"precision": precision, "global_batch": 2, "micro_batch": None}
    optim = recipe.optim.model_copy(update=two)
    step = Step(recipe.objective, optim, alone(setup.model), teacher=setup.teacher)
    parameters = {p.data_ptr() for p in setup.model.parameters()}
    kept: dict[int, int] = {}
    counter = FlopCounterMode(display=False, custom_mapping=ATTENTION_FLOPS)
    forward = 0

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in parameters:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    def give(tensor: torch.Tensor) -> torch.Tensor:  # first called as the backward pass begins
        nonlocal forward
        forward = forward or counter.get_total_flops()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, give), counter:
        step(batch)
    setup.model.zero_grad(set_to_none=True)
    by_kind = counter.get_flop_counts()["Global"]
    convolved = sum(value for kind, value in by_kind.items() if "convolution" in str(kind))
    whole = counter.get_total_flops()
    return StepCount(sum(kept.values()) // 2, forward / 2, whole / 2, convolved / max(1, whole))
