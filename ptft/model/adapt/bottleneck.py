"""Bottleneck adapters after a sublayer (Houlsby et al. 2019): x + up(gelu(down(x))).

An adapter is a part named ``bottleneck`` of the module whose output it changes, called by a hook,
so that the names of all other weights stay as they are.
"""

from collections.abc import Iterable
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["Bottleneck", "attach_bottlenecks"]


class Bottleneck(nn.Module):
    """(..., D) -> (..., D); the identity while ``up`` is zero, as it is at first."""

    def __init__(self, features: int, width: int) -> None:
        super().__init__()
        self.down = nn.Linear(features, width)
        self.up = nn.Linear(width, features)
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.up(F.gelu(self.down(x)))


def attach_bottlenecks(tower: nn.Module, names: Iterable[str], width: int) -> None:
    """Put an adapter on the output of each module named, in place."""
    for name in names:
        host: Any = tower.get_submodule(name)
        attention = isinstance(host, nn.MultiheadAttention)
        weight = host.out_proj.weight if attention else host.weight
        host.bottleneck = Bottleneck(len(weight), width).to(weight.device, weight.dtype)
        host.register_forward_hook(_through)


def _through(host: Any, inputs: Any, output: Any) -> Any:
    # The adapter is found on the module and not bound here, so that a copied model calls its own.
    if isinstance(output, tuple):  # nn.MultiheadAttention: output and weights
        return (host.bottleneck(output[0]), *output[1:])
    return host.bottleneck(output)
