"""An exponential moving average of what learns (Polyak & Juditsky 1992), kept beside the model.

The average, not the raw weights, is what a run evaluates and leaves as its model; training itself
goes on from the raw weights, and a checkpoint holds both.
"""

import torch
from torch import nn

from ptft.files.tensors import local_part
from ptft.train.state.weight_copy import WeightCopy

__all__ = ["Ema", "ema_decay"]

_PREFIX = "ema/"  # of the names in a checkpoint


def ema_decay(decay: float, step: int) -> float:
    """Decay of the update after optimiser step ``step`` (1, 2, ...): min(decay, step / (step + 9)).

    The average begins at the initial weights; at full decay it would keep to them for about
    1 / (1 - decay) steps. So it forgets them quickly at first, as in TensorFlow's
    ``ExponentialMovingAverage`` with ``num_updates``, whose rule this is.
    """
    return min(decay, step / (step + 9.0))


class Ema(WeightCopy):
    """The average of a model's learning weights and of its floating-point buffers.

    Sharded tensors (DTensor) are averaged shard by shard, since the update is elementwise.

    Args:
        model: whose present weights the average starts from, on its device and sharded if it is to
            be.
        decay: per optimiser step, in (0, 1).
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        super().__init__(model, _PREFIX)
        self.decay = decay

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Move the average towards the weights after optimiser step ``step`` (1, 2, ...)."""
        kept = [local_part(tensor) for tensor in self._kept.values()]
        torch._foreach_lerp_(kept, self._live, 1.0 - ema_decay(self.decay, step))
