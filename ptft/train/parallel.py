"""A model among ranks: what training's forward goes through, and whose gradients are averaged."""

import contextlib
from dataclasses import dataclass
from typing import Any

from torch import nn

from ptft.distributed import World
from ptft.model import DualEncoder

__all__ = ["Parallel", "share"]


@dataclass(frozen=True)
class Parallel:
    """A model and the ranks that it learns on.

    Attributes:
        model: what is saved, evaluated and updated.
        wrapped: the same model behind what reduces its gradients.
        world: the ranks.
    """

    model: DualEncoder
    wrapped: nn.Module
    world: World

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """:meth:`DualEncoder.forward`, in training."""
        return self.wrapped(*args, **kwargs)

    def reduced(self, last: bool) -> contextlib.AbstractContextManager:
        """Around forward and backward of a micro batch: gradients are reduced with the last."""
        return contextlib.nullcontext()


def share(model: DualEncoder, world: World) -> Parallel:
    """The model as it learns in ``world``."""
    return Parallel(model, model, world)
