"""Counts what training costs in operations, which no other load of the machine changes."""

from collections.abc import Sequence
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode, conv_flop_count

from ptft.objective import compute_objective
from ptft.recipe import Recipe
from ptft.train.setup import batches, set_up, to_device

__all__ = ["count_training", "counter"]


def count_training(recipe: Recipe) -> tuple[float, float]:
    """Floating-point operations of training on one sample, counted on one small step; and the
    share of the parameters that learns."""
    setup = set_up(recipe, torch.device("cpu"))
    count = min(2, len(setup.samples))
    batch = next(iter(batches(recipe, setup, start=0, end=count, size=count, workers=0)))
    with counter() as counted:
        loss = compute_objective(
            recipe.objective, setup.model, to_device(batch, setup.model, recipe)
        ).loss
        if setup.steps:
            loss.backward()
    parameters = list(setup.model.parameters())
    learning = sum(p.numel() for p in parameters if p.requires_grad)
    return (
        counted.get_total_flops() / count,
        learning / sum(p.numel() for p in parameters),
    )


def counter() -> FlopCounterMode:
    """Mend torch's counter for the gradients of convolutions: it counts that of a weight as if the
    convolution had one group, for a depthwise one as many times too much as it has channels."""
    mapping = {torch.ops.aten.convolution_backward: _convolution_backward}
    return FlopCounterMode(display=False, custom_mapping=mapping)


def _convolution_backward(
    grad_shape: Sequence[int],
    x_shape: Sequence[int],
    w_shape: Sequence[int],
    *more: Any,
    **_: Any,
) -> int:
    """Each product of the forward pass is in one product of each gradient that is wanted."""
    _bias, _stride, _padding, _dilation, transposed, _output_padding, _groups, wanted = more
    forward = conv_flop_count(list(x_shape), list(w_shape), list(grad_shape), transposed)
    return forward * sum(wanted[:2])
