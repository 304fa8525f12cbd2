"""An exponential moving average of what learns (Polyak & Juditsky 1992), kept beside the model.

The average, not the raw weights, is what a run evaluates and leaves as its model; training itself
goes on from the raw weights, and a checkpoint holds both.
"""

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from ptft.tensor_files import is_sharded, local_part

__all__ = ["Ema", "ema_decay"]

_PREFIX = "ema/"  # of the names in a checkpoint


def ema_decay(decay: float, step: int) -> float:
    """Decay of the update after optimiser step ``step`` (1, 2, ...): min(decay, step / (step + 9)).

    The average begins at the initial weights; at full decay it would keep to them for about
    1 / (1 - decay) steps. So it forgets them quickly at first, as in TensorFlow's
    ``ExponentialMovingAverage`` with ``num_updates``, whose rule this is.
    """
    return min(decay, step / (step + 9.0))


class Ema:
    """The average of a model's learning weights and of its floating-point buffers.

    Locked weights do not move and need no average; batch norms' statistics are buffers and do.
    Integer buffers are counters, and the model's own are taken. Sharded tensors (DTensor) are
    averaged shard by shard, since the update is elementwise.

    Args:
        model: whose present weights the average starts from, on its device and sharded if it is to
            be.
        decay: per optimiser step, in (0, 1).
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self._sharded = _sharded_parts(model)
        live = _averaged(model)
        self._live = [local_part(tensor) for tensor in live.values()]
        # as they are laid out (channels-last, sharded), since a swap copies one into the other
        self._average = {name: tensor.detach().clone() for name, tensor in live.items()}

    @property
    def tensors(self) -> dict[str, Tensor]:
        """The average by name, for a checkpoint to keep and to fill."""
        return {_PREFIX + name: tensor for name, tensor in self._average.items()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Move the average towards the weights after optimiser step ``step`` (1, 2, ...)."""
        averages = [local_part(tensor) for tensor in self._average.values()]
        torch._foreach_lerp_(averages, self._live, 1.0 - ema_decay(self.decay, step))

    @contextlib.contextmanager
    def applied(self) -> Iterator[None]:
        """Inside, the model has the averaged weights; afterwards its own, bit for bit."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    @torch.no_grad()
    def _swap(self) -> None:
        for live, average in zip(self._live, self._average.values(), strict=True):
            kept = live.clone()
            live.copy_(local_part(average))
            local_part(average).copy_(kept)
        for part in self._sharded:  # may still hold whole weights, gathered before the swap
            part.reshard()


def _averaged(model: nn.Module) -> dict[str, Tensor]:
    """What an average is kept of: by name, parameters that learn and saved float buffers."""
    saved = model.state_dict(keep_vars=True)  # leaves out buffers that are made anew, such as masks
    return {
        name: tensor
        for name, tensor in saved.items()
        if tensor.is_floating_point()
        and (tensor.requires_grad or not isinstance(tensor, nn.Parameter))
    }


def _sharded_parts(model: nn.Module) -> list[Any]:
    """FSDP2's modules, which gather their weights; none where no weight is sharded."""
    if not is_sharded(model.parameters()):
        return []
    from torch.distributed.fsdp import FSDPModule  # seconds that a run of one process need not pay

    return [part for part in model.modules() if isinstance(part, FSDPModule)]
