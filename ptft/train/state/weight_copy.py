"""A second set of what learns, kept beside the model: an average of it, or the best there was."""

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from ptft.files.tensors import is_sharded, local_part

__all__ = ["WeightCopy", "extra_tensors"]


class WeightCopy:
    """Copies of a model's learning weights and of its floating-point buffers.

    Locked weights do not move and need no copy; batch norms' statistics are buffers and do. Integer
    buffers are counters, and the model's own are taken.

    Args:
        model: whose present weights are copied, on its device and sharded if it is to be.
        prefix: of the names in a checkpoint.
    """

    def __init__(self, model: nn.Module, prefix: str) -> None:
        self._prefix = prefix
        self._sharded = _sharded_parts(model)
        live = _learning(model)
        self._live = [local_part(tensor) for tensor in live.values()]
        # as they are laid out (channels-last, sharded), since a swap copies one into the other
        self._kept = {name: tensor.detach().clone() for name, tensor in live.items()}

    @property
    def tensors(self) -> dict[str, Tensor]:
        """The copies by name, for a checkpoint to keep and to fill."""
        return {self._prefix + name: tensor for name, tensor in self._kept.items()}

    @torch.no_grad()
    def take(self) -> None:
        """Copy the model's weights of now."""
        for live, kept in zip(self._live, self._kept.values(), strict=True):
            local_part(kept).copy_(live)

    @contextlib.contextmanager
    def applied(self) -> Iterator[None]:
        """Inside, the model has the copies; afterwards its own weights, bit for bit."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    @torch.no_grad()
    def _swap(self) -> None:
        for live, copy in zip(self._live, self._kept.values(), strict=True):
            own = live.clone()
            live.copy_(local_part(copy))
            local_part(copy).copy_(own)
        for part in self._sharded:  # may still hold whole weights, gathered before the swap
            part.reshard()


def _learning(model: nn.Module) -> dict[str, Tensor]:
    """What is copied: by name, parameters that learn and saved float buffers."""
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


def extra_tensors(*copies: WeightCopy | None) -> dict[str, torch.Tensor]:
    """What a checkpoint holds beside the model."""
    return {
        name: tensor for one in copies if one is not None for name, tensor in one.tensors.items()
    }
