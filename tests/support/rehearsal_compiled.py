"""What ``run.compile`` makes of a model's blocks, on a device that the host cannot read.

torch's compiler follows tensors that have shapes and a device (``meta``), and no numbers: forward
and backward, as it does on a GPU before it makes kernels. A tensor on another device is an error
there; what asks the device for a number (``item``, a condition on a tensor) breaks the graph, which
on a GPU is a wait in each block of each step.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch._dynamo.utils import counters
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode

from ptft.model import DualEncoder
from ptft.recipe import Recipe
from ptft.train.device import compile_blocks
from tests.support.steps import learner, recipe

__all__ = ["COMPILED", "Compiled", "compiled", "rehearse_compiled"]

COMPILED: dict[str, tuple[str, dict[str, Any]]] = {
    "ViT, causal texts": ("tiny-vit", {}),
    "ConvNeXt": ("tiny-convnext", {}),
    "texts with padding": ("tiny-siglip", {"objective__kind": "siglip"}),
    "LoRA": ("tiny-vit", {"adapt": {"kind": "lora", "rank": 2, "dropout": 0.1}}),
    "DoRA": ("tiny-vit", {"adapt": {"kind": "dora", "rank": 2, "dropout": 0.0}}),
    "bottleneck": ("tiny-vit", {"adapt": {"kind": "bottleneck", "width": 4}}),
    "prefix": ("tiny-vit", {"adapt": {"kind": "prefix", "length": 2, "depth": "deep"}}),
    "locked": ("tiny-vit", {"adapt__lock": ["image"]}),
}
"""By name: an architecture, and changes to the recipe of :mod:`tests.support.steps`."""
_BATCH = 4


@dataclass(frozen=True)
class Compiled:
    """What the compiler said.

    Attributes:
        graphs: compiled, over both towers, with a graph to go back through and without.
        breaks: reasons for which it stopped within a block.
    """

    graphs: int
    breaks: list[str]


def rehearse_compiled(case: str) -> Compiled:
    """A case of :data:`COMPILED`."""
    arch, changes = COMPILED[case]
    section: Recipe = recipe(**changes)
    return compiled(learner(section, arch, double=False))


def compiled(model: DualEncoder) -> Compiled:
    """Forward and backward of a model with compiled blocks, as GradCache calls it: without a graph,
    then with one, its texts of several lengths where they may be trimmed.

    Raises:
        Exception: torch's, of a tensor that lies elsewhere.
    """
    torch._dynamo.reset()
    counters.clear()
    compile_blocks(model, backend="aot_eager")
    lengths = {model.context_length}
    if model.spec.text_trimmable:
        lengths |= {model.context_length // part for part in (2, 3)}
    asked = []
    with FakeTensorMode(allow_non_fake_inputs=False):
        _empty_weights(model)
        try:
            for length in sorted(lengths, reverse=True):
                _step(model, length)
        except DataDependentOutputException as error:  # beside the graphs, where it broke
            asked.append(f"asked the device for a number: {error}")
    stats, breaks = dict(counters["stats"]), [*counters["graph_break"]]
    torch._dynamo.reset()
    return Compiled(stats.get("unique_graphs", 0), breaks + asked)


def _step(model: DualEncoder, length: int) -> None:
    images = _on_device(_BATCH, 3, *model.spec.preprocess.size)
    tokens = _on_device(_BATCH, length, dtype=torch.int64)
    with torch.no_grad():
        model(images, tokens)
    found = [one for one in model(images, tokens) if one.requires_grad]
    torch.autograd.backward([one.sum() for one in found])


def _on_device(*size: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.empty(size, dtype=dtype, device="meta")


def _empty_weights(model: DualEncoder) -> None:
    """Weights and buffers of the same shapes on the device, in place of the model's."""
    for module in model.modules():
        for name, weight in module._parameters.items():
            if weight is not None:
                empty = _on_device(*weight.shape, dtype=weight.dtype)
                made = torch.nn.Parameter(empty, requires_grad=weight.requires_grad)
                module._parameters[name] = made
        for name, buffer in module._buffers.items():
            if buffer is not None:
                module._buffers[name] = _on_device(*buffer.shape, dtype=buffer.dtype)
