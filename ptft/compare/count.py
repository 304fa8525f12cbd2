"""Counts what training costs in operations, which no other load of the machine changes."""

from collections.abc import Sequence
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode, conv_flop_count

from ptft.data import Batch
from ptft.recipe import Recipe
from ptft.train.batches import batches, images_to_device
from ptft.train.gradients import Step
from ptft.train.parallel import alone
from ptft.train.setup import Setup, set_up

__all__ = ["count_training", "counter"]


def count_training(recipe: Recipe) -> tuple[float, float]:
    """Floating-point operations of training on one sample, counted on one small step; and the
    share of the parameters that learns. What takes no steps counts as its samples' logits.
    """
    setup = set_up(recipe, torch.device("cpu"))
    count = min(2, len(setup.samples))
    batch = next(iter(batches(recipe, setup, start=0, end=count, size=count, workers=0)))
    if setup.steps:
        flops = _of_step(recipe, setup, batch, None)
        if recipe.optim.micro_batch is not None:  # all but the last of a batch run forward twice
            twice = 1 - recipe.optim.micro_batch / recipe.optim.global_batch
            flops += twice * count * (_of_step(recipe, setup, batch, 1) - flops) / max(1, count - 1)
    else:
        assert isinstance(batch.images, torch.Tensor)
        with counter() as counted:
            setup.model.classify(images_to_device(batch.images, setup.model))
        flops = counted.get_total_flops()
    parameters = list(setup.model.parameters())
    learning = sum(p.numel() for p in parameters if p.requires_grad)
    return flops / count, learning / sum(p.numel() for p in parameters)


def _of_step(recipe: Recipe, setup: Setup, batch: Batch, micro: int | None) -> float:
    """Operations of one step on a batch, ``micro`` samples at once or all."""
    size = {"global_batch": len(batch), "micro_batch": micro}
    optim = recipe.optim.model_copy(update=size)
    step = Step(recipe.objective, optim, alone(setup.model), teacher=setup.teacher)
    with counter() as counted:
        step(batch)
    setup.model.zero_grad(set_to_none=True)
    return float(counted.get_total_flops())


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
