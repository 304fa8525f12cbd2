"""One tower of a torch model as an ONNX file, free of everything that is not the model.

Opset 18: the one that torch's exporter writes without converting; onnxruntime reads it from
1.14 on.

Some functions of torch are traced in forms of few nodes, which onnxruntime fuses: torch's exporter
writes an attention with some thirty nodes, most of them about the sizes of its keys, a GELU whose
factors stand in an order that onnxruntime does not know, and the patches of a picture as a
convolution, which takes three times as long as the product of matrices that it is. The numbers are
the same but for the order of additions.
"""

import ctypes
import gc
import logging
import math
import sys
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from ptft.errors import ExportError
from ptft.model.trunk import as_exported
from ptft.onnx.file import read_onnx
from ptft.onnx.graph_file import inside, save_graph, strip

__all__ = [
    "OPSET",
    "PlainOps",
    "Tower",
    "check_axes",
    "write_graph",
]

OPSET = 18


@dataclass(frozen=True)
class Tower:
    """What is exported: a module of one tensor to one tensor.

    Attributes:
        module: in eval mode, on the CPU.
        input_name, output_name: as clients of exported CLIP models call them.
        example: an input; its sizes along ``axes`` must be 2 or more, or they would be taken
            for constants.
        axes: number of an input's dimension that may vary -> its name and its largest size
            (None: any).
    """

    module: nn.Module
    input_name: str
    output_name: str
    example: Tensor
    axes: Mapping[int, tuple[str, int | None]]


def write_graph(tower: Tower, path: Path) -> None:
    """Export a tower, strip it and check its axes.

    Raises:
        ExportError: torch cannot export it, or an axis that should vary came out fixed.
    """
    dims = {
        axis: torch.export.Dim(name) if most is None else torch.export.Dim(name, max=most)
        for axis, (name, most) in tower.axes.items()
    }
    try:
        with _quiet(), torch.no_grad(), as_exported(), PlainOps():
            program = torch.onnx.export(
                tower.module,
                (tower.example,),
                dynamo=True,
                input_names=[tower.input_name],
                output_names=[tower.output_name],
                dynamic_shapes=(dims,),
                opset_version=OPSET,
                verbose=False,
            )
    except Exception as error:  # torch's exporter raises many kinds
        reason = str(error.__cause__ or error).strip().splitlines()[0]
        raise ExportError(f"{path.name}: torch cannot export this tower: {reason}") from error
    assert program is not None
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".graph-", dir=path.parent) as scratch:
        plain = Path(scratch, "plain.onnx")
        program.save(plain, external_data=True)  # as a message they would be in memory twice more
        del program
        proto = onnx.load(plain, load_external_data=False)
        _fold_reshapes(proto.graph, plain.parent)
        strip(proto)
        save_graph(proto, path, plain.parent)
    _give_back()
    check_axes(path, tower)


def _give_back() -> None:
    """Return what the exporter held to the system: its graphs are in circles, and the C library
    keeps what is freed. The processes that come next have weights of their own."""
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is not None:
        trim(0)


def _fold_reshapes(graph: onnx.GraphProto, beside: Path) -> None:
    """Give a weight the shape that it is read in: the exporter's optimiser leaves large ones, and
    what is no constant is not quantised.

    Args:
        beside: the folder that weights lie in.
    """
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    for node in [one for one in graph.node if one.op_type == "Reshape"]:
        if set(node.input) <= set(tensors):
            weight, shape = (
                onnx.numpy_helper.to_array(inside(tensors[name], beside)) for name in node.input
            )
            folded = onnx.numpy_helper.from_array(weight.reshape(shape), node.output[0])
            graph.initializer.append(folded)
            graph.node.remove(node)
    read = {name for node in graph.node for name in node.input}
    for tensor in list(graph.initializer):
        if tensor.name not in read:
            graph.initializer.remove(tensor)


def check_axes(path: Path, tower: Tower) -> None:
    """Hold the axes of a written file against the tower's.

    Raises:
        ExportError: naming the axis that came out fixed, or that should have been.
    """
    graph = read_onnx(path)  # which takes no memory for weights
    names = [*graph.inputs, *graph.outputs]
    if names != [tower.input_name, tower.output_name]:
        raise ExportError(
            f"{path.name}: inputs and outputs are {names}; "
            f"wanted: {[tower.input_name, tower.output_name]}"
        )
    found = graph.shapes[tower.input_name]
    wanted = [
        tower.axes[axis][0] if axis in tower.axes else size
        for axis, size in enumerate(tower.example.shape)
    ]
    if found != wanted:
        raise ExportError(f"{path.name}: {tower.input_name} has axes {found}; wanted: {wanted}")
    if graph.shapes[tower.output_name][:1] != [tower.axes[0][0]]:
        raise ExportError(f"{path.name}: the batch of {tower.output_name} came out fixed")


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence what the exporter says of its own inside; anything else comes through."""
    folding = logging.getLogger("onnxscript.optimizer._constant_folding")
    level = folding.level
    folding.setLevel(logging.ERROR)  # "Skipping constant folding for op Split": nothing is lost
    try:
        with warnings.catch_warnings():
            # torch's exporter copies a structure in a way that another part of torch deprecates
            warnings.filterwarnings(
                "ignore", r"`isinstance\(treespec, LeafSpec\)` is deprecated", FutureWarning
            )
            yield
    finally:
        folding.setLevel(level)


class PlainOps(TorchFunctionMode):
    """Inside, these functions are traced as they are written here."""

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is F.scaled_dot_product_attention:
            return _attention(*args, **kwargs)
        if func is F.gelu and kwargs.get("approximate", "none") == "none" and len(args) == 1:
            return _gelu(*args)
        if func is F.conv2d and not kwargs and _cuts_patches(*args):
            return _patches(*args)
        return func(*args, **kwargs)


def _attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """``F.scaled_dot_product_attention`` in eval mode."""
    if is_causal or enable_gqa or dropout_p:
        return F.scaled_dot_product_attention(
            query, key, value, attn_mask, dropout_p, is_causal, scale=scale, enable_gqa=enable_gqa
        )
    scale = 1 / math.sqrt(query.shape[-1]) if scale is None else scale
    scores = (query * scale) @ key.transpose(-2, -1)
    if attn_mask is not None and attn_mask.dtype == torch.bool:
        scores = scores.masked_fill(~attn_mask, -math.inf)
    elif attn_mask is not None:
        scores = scores + attn_mask
    return scores.softmax(dim=-1) @ value


def _gelu(x: Tensor) -> Tensor:
    return x * (torch.erf(x / math.sqrt(2.0)) + 1.0) * 0.5


def _cuts_patches(
    images: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> bool:
    """Whether a convolution reads each pixel once: patches beside each other."""
    size = list(weight.shape[2:])
    whole = all(side % patch == 0 for side, patch in zip(images.shape[2:], size, strict=True))
    return (
        whole
        and min(size) > 1
        and _pair(stride) == size
        and padding in ("valid", *_same(0))
        and dilation in _same(1)
        and groups == 1
    )


def _patches(images: Tensor, weight: Tensor, bias: Tensor | None, *_: Any) -> Tensor:
    """(B, C, H, W) to (B, D, H / P, W / Q), a product with the weight (D, C, P, Q)."""
    channels, (down, across) = weight.shape[1], weight.shape[2:]
    rows, columns = images.shape[2] // down, images.shape[3] // across
    cut = images.reshape(-1, channels, rows, down, columns, across).permute(0, 2, 4, 1, 3, 5)
    products = F.linear(cut.reshape(-1, channels * down * across), weight.flatten(1), bias)
    return (
        products.reshape(-1, rows * columns, len(weight))
        .transpose(1, 2)
        .unflatten(2, (rows, columns))
    )


def _same(number: int) -> tuple[Any, ...]:
    return (number, (number, number), [number, number])


def _pair(value: Any) -> list[Any]:
    return [value, value] if isinstance(value, int) else list(value)
