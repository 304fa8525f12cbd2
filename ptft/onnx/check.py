"""Whether an ONNX file may be handed to onnxruntime: what it does ends, what it takes is there.

A graph can hold a loop without an end, a constant of 64 GiB in a hundred bytes, a size that a word
in a caption decides. None of these is in a tower that :mod:`ptft.export` writes. Allowed are
operators that compute something from tensors, sizes that follow from the sizes of the input and
never from what is in it, and weights that are as large as they are said to be. What a graph costs
is then the same for every input of a size, so that running the largest once shows it
(:mod:`ptft.onnx.trial`).
"""

import math
from collections.abc import Collection
from pathlib import Path

from ptft.errors import ArtifactError
from ptft.onnx.file import BYTES_OF, Graph, Node, Tensor, read_onnx

__all__ = ["OPERATORS", "check_graph", "check_onnx_file"]

OPERATORS = frozenset({
    "Abs", "Add", "And", "ArgMax", "ArgMin", "AveragePool", "BatchNormalization", "Cast",
    "CastLike", "Ceil", "Clip", "Concat", "Constant", "ConstantOfShape", "Conv", "ConvInteger",
    "ConvTranspose", "Cos", "CumSum", "DepthToSpace", "DequantizeLinear", "Div",
    "DynamicQuantizeLinear", "Einsum", "Elu", "Equal", "Erf", "Exp", "Expand", "Flatten", "Floor",
    "Gather", "GatherElements", "GatherND", "Gelu", "Gemm", "GlobalAveragePool", "GlobalMaxPool",
    "Greater", "GreaterOrEqual", "GroupNormalization", "HardSigmoid", "HardSwish", "Identity",
    "InstanceNormalization", "IsInf", "IsNaN", "LayerNormalization", "LeakyRelu", "Less",
    "LessOrEqual", "Log", "LogSoftmax", "MatMul", "MatMulInteger", "Max", "MaxPool", "Mean",
    "Min", "Mish", "Mod", "Mul", "Neg", "Not", "OneHot", "Or", "PRelu", "Pad", "Pow",
    "QLinearConv", "QLinearMatMul", "QuantizeLinear", "RMSNormalization", "Range", "Reciprocal",
    "ReduceL1", "ReduceL2", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd", "ReduceSum",
    "ReduceSumSquare", "Relu", "Reshape", "Resize", "Round", "ScatterElements", "ScatterND",
    "Selu", "Shape", "Sigmoid", "Sign", "Sin", "Size", "Slice", "Softmax", "Softplus", "Softsign",
    "SpaceToDepth", "Split", "Sqrt", "Squeeze", "Sub", "Sum", "Swish", "Tanh", "Tile", "TopK",
    "Transpose", "Trilu", "Unsqueeze", "Where", "Xor",
})  # fmt: skip
"""Of ONNX's own domain. No control flow (If, Loop, Scan), nothing drawn, no texts, no sequences,
and none whose output's size depends on values (NonZero, Compress, Unique)."""

_SIZES: dict[str, tuple[int, ...]] = {  # operator -> which of its inputs decide its output's size
    "ConstantOfShape": (0,), "Expand": (1,), "OneHot": (1,), "Pad": (1, 3), "Range": (0, 1, 2),
    "Reshape": (1,), "Resize": (1, 2, 3), "Slice": (1, 2, 3, 4), "Split": (1,), "Squeeze": (1,),
    "Tile": (1,), "TopK": (1,), "Unsqueeze": (1,),
}  # fmt: skip
_FROM_SIZES = ("Shape", "Size")  # their output tells sizes and no values
_MAX_RANK = 16
_MAX_CONSTANT = 2**32  # bytes that a graph may make of a size that it holds


def check_onnx_file(path: Path, *, recorded: Collection[str] | None = None) -> Graph:
    """What :func:`check_graph` holds, of a file; nothing is run.

    Args:
        recorded: names of the files in ``path``'s folder that may be opened beside it; None: any.

    Raises:
        ArtifactError: it is absent, damaged, or has something that is not allowed.
    """
    graph = read_onnx(path)
    check_graph(graph, path, recorded)
    return graph


def check_graph(graph: Graph, path: Path, recorded: Collection[str] | None) -> None:
    """Operators, sizes and weights of a graph.

    Raises:
        ArtifactError: naming the file, the node or tensor, and what is allowed.
    """
    if graph.odd:
        raise ArtifactError(f"{path}: {graph.odd[0]}; allowed: one graph of plain operators")
    for node in graph.nodes:
        _check_node(node, path)
    held = {tensor.name for tensor in graph.tensors}
    fed = [name for name in graph.inputs if name not in held]
    if len(fed) != 1 or len(graph.outputs) != 1:
        raise ArtifactError(
            f"{path}: {len(fed)} inputs and {len(graph.outputs)} outputs; allowed: one of each"
        )
    sizes = {path.name + "_data": _size(path, recorded)}
    for tensor in graph.tensors:
        _check_tensor(tensor, path, sizes)
    _check_sizes(graph, fed[0], path)


def _check_node(node: Node, path: Path) -> None:
    name = f"{node.domain}.{node.op}" if node.domain else node.op
    if node.domain not in ("", "ai.onnx") or node.op not in OPERATORS:
        raise ArtifactError(
            f"{path}: operator {name[:60]!r}; allowed: those of ONNX that compute tensors, without "
            "loops, choices, texts and functions (ptft.onnx.check.OPERATORS)"
        )
    for attribute in node.attributes:
        if attribute.graphs:
            raise ArtifactError(f"{path}: {name}: a graph inside; allowed: none")
        for tensor in attribute.tensors:
            _check_tensor(tensor, path, {})


def _check_tensor(tensor: Tensor, path: Path, sizes: dict[str, int | None]) -> None:
    """Whether a tensor's bytes are there."""
    where = f"{path}: tensor {tensor.name[:60]!r}"
    if len(tensor.dims) > _MAX_RANK or any(size < 0 for size in tensor.dims):
        raise ArtifactError(f"{where}: shape {tensor.dims[:4]}; allowed: up to {_MAX_RANK} sizes")
    if tensor.kind not in BYTES_OF:
        raise ArtifactError(
            f"{where}: element type {tensor.kind}; allowed: numbers of 1 to 8 bytes"
        )
    count = math.prod(tensor.dims)
    wanted = count * BYTES_OF[tensor.kind]
    if tensor.external:
        _check_external(tensor, wanted, where, sizes)
    elif tensor.data is not None:
        if len(tensor.data) != wanted:
            raise ArtifactError(
                f"{where}: shape {tensor.dims} takes {wanted} bytes; it has {len(tensor.data)}"
            )
    elif count > tensor.plain:  # in protobuf's form a value has one byte at least
        raise ArtifactError(f"{where}: {count} values; the file has {tensor.plain} bytes of them")


def _check_external(tensor: Tensor, wanted: int, where: str, sizes: dict[str, int | None]) -> None:
    place = tensor.external.get("location", "")
    if place not in sizes:
        allowed = ", ".join(sizes) or "none"
        raise ArtifactError(f"{where}: its bytes are in {place[:60]!r}; allowed: {allowed}")
    size = sizes[place]
    if size is None:
        raise ArtifactError(f"{where}: its bytes are in {place}, which is absent or not recorded")
    numbers = []
    for key, default in (("offset", 0), ("length", wanted)):
        text = tensor.external.get(key, str(default))
        if not text.isascii() or not text.isdigit() or len(text) > 18:
            raise ArtifactError(f"{where}: {key} {text[:30]!r}; allowed: a whole number")
        numbers.append(int(text))
    offset, length = numbers
    if length != wanted or offset + length > size:
        raise ArtifactError(
            f"{where}: shape {tensor.dims} takes {wanted} bytes; {place} of {size} bytes has "
            f"{length} of them at {offset}"
        )


def _size(path: Path, recorded: Collection[str] | None) -> int | None:
    beside = path.with_name(path.name + "_data")
    if recorded is not None and beside.name not in recorded:
        return None
    return beside.stat().st_size if beside.is_file() else None


def _check_sizes(graph: Graph, fed: str, path: Path) -> None:
    """No output's size may follow from what is in the input, and nothing is made from nothing."""
    made = {tensor.name for tensor in graph.tensors} | {fed}
    made |= {name for node in graph.nodes for name in node.outputs}
    ints = {tensor.name: _ints(tensor) for tensor in graph.tensors}
    for node in graph.nodes:
        if node.op == "Constant":
            found = [n for a in node.attributes for t in a.tensors for n in _ints(t)]
            ints |= dict.fromkeys(node.outputs, found)
    depends = _depending(graph, fed)
    for node in graph.nodes:
        for index, name in enumerate(node.inputs):
            if name and name not in made:
                raise ArtifactError(
                    f"{path}: {node.op}: reads {name[:60]!r}, which nothing in it makes"
                )
            if name in depends and index in _SIZES.get(node.op, ()):
                raise ArtifactError(
                    f"{path}: {node.op}: a size that follows from what is in the input; allowed: "
                    "sizes that follow from the input's size"
                )
        _check_constant(node, ints, path)


def _depending(graph: Graph, fed: str) -> set[str]:
    """Names of the values that follow from what is in the input; nodes stand in any order."""
    readers: dict[str, list[Node]] = {}
    for node in graph.nodes:
        if node.op not in _FROM_SIZES:
            for name in node.inputs:
                readers.setdefault(name, []).append(node)
    depends, waiting = {fed}, [fed]
    while waiting:
        for node in readers.pop(waiting.pop(), ()):
            new = set(node.outputs) - depends - {""}
            depends |= new
            waiting += new
    return depends


def _check_constant(node: Node, ints: dict[str, list[int]], path: Path) -> None:
    """A size that the graph holds, of what it makes out of one number."""
    if node.op not in ("ConstantOfShape", "Expand", "Tile", "Pad"):
        return
    name = node.inputs[min(1, len(node.inputs) - 1)] if node.inputs else ""
    sizes = ints.get(name, [])
    total = math.prod(max(1, abs(size)) for size in sizes)
    if node.op == "Pad":
        total = max((abs(size) for size in sizes), default=1)
    if total * 8 > _MAX_CONSTANT:
        raise ArtifactError(
            f"{path}: {node.op}: makes {total} values out of a few; allowed: {_MAX_CONSTANT // 8}"
        )


def _ints(tensor: Tensor) -> list[int]:
    """Values of a small int64 tensor; empty of any other."""
    if tensor.kind != 7:
        return []
    if tensor.data is None:
        return tensor.ints
    if len(tensor.data) > 8 * _MAX_RANK * 2:
        return []
    data = bytes(tensor.data)
    return [
        int.from_bytes(data[place : place + 8], "little", signed=True)
        for place in range(0, len(data), 8)
    ]
