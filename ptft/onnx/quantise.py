"""A tower with fewer bits, of the float32 one: float16 weights and arithmetic, or 8-bit weights by
onnxruntime's quantiser.

Which way to 8 bits depends on what the weights are, since each is slow or inexact on the other's:

- Convolutions (ResNet, MobileNet, ConvNeXt): the ranges of all values are learned from pictures
  beforehand, and the arithmetic between runs in integers. With ranges taken as it runs, a ResNet
  is slower than in float32.
- Matrix products (transformers): the range of each product's input is taken as it runs; weights
  have one scale a column. Token embeddings are 8 bits too, and read as they are needed.

Weights use all 8 bits. Processors without VNNI (before 2019) may saturate 16-bit sums on them.

A file is made in a process that ends (:func:`convert_apart`), which imports no torch. The graph is
read with its weights once; what onnxruntime copies and infers shapes of has them outside.
"""

import math
import mmap
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray

from ptft.errors import ExportError
from ptft.onnx.file import read_onnx
from ptft.onnx.graph_file import EXTERNAL_EACH, consumers, save_graph, strip

__all__ = ["GIVES_BACK", "convert_apart", "learns_ranges", "write_half", "write_int8"]


GIVES_BACK = {"MALLOC_MMAP_THRESHOLD_": "1048576", "MALLOC_TRIM_THRESHOLD_": "16777216"}
"""Variables for a process that reads weights once: glibc gives back each that is freed, where it
would keep those of up to 32 MB."""


def convert_apart(name: str, path: Path, plain: Path, pictures: NDArray[np.float32]) -> None:
    """Write ``path`` in a precision, ``fp16`` or ``int8``, from the float32 file, in a process of
    its own.

    Args:
        pictures: see :func:`write_int8`.

    Raises:
        ExportError: the tower has something that cannot be converted.
    """
    with tempfile.TemporaryDirectory(prefix=".convert-", dir=path.parent) as scratch:
        shown = Path(scratch, "pictures.npy")
        if name == "int8" and learns_ranges(plain):
            np.save(shown, pictures)
        done = subprocess.run(
            [sys.executable, "-P", "-m", "ptft.onnx.quantise", name, path, plain, shown],
            env={**os.environ, **GIVES_BACK, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
        )
    if done.returncode < 0:
        raise ExportError(f"{path.name}: its conversion was ended by signal {-done.returncode}")
    if done.returncode > 0:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise ExportError(f"{path.name}: cannot be converted: {last}")


def _set_aside(plain: Path, scratch: str, change: Callable[[onnx.ModelProto], None]) -> Path:
    """A float32 file, changed, with its weights beside it."""
    proto = onnx.ModelProto()
    with plain.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
        proto.ParseFromString(memoryview(data))  # which reads no second copy into memory
    onnx.load_external_data_for_model(proto, str(plain.parent))
    change(proto)
    path = Path(scratch, "plain.onnx")
    onnx.save(
        proto, path, save_as_external_data=True, location="weights", size_threshold=EXTERNAL_EACH
    )
    return path


def write_half(path: Path, plain: Path) -> None:
    """Write ``path`` from the float32 file ``plain``. Inputs and outputs stay as they are.

    Constants beyond float16 are cut to its range, and below it to its smallest number, by
    onnxruntime's converter (``keep_io_types``).
    """
    from onnxruntime.transformers.float16 import convert_float_to_float16

    with tempfile.TemporaryDirectory(prefix=".half-", dir=path.parent) as scratch:
        aside = _set_aside(plain, scratch, lambda proto: _transpose_after_products(proto.graph))
        proto = convert_float_to_float16(str(aside), keep_io_types=True)
    for tensor in proto.graph.initializer:
        tensor.ClearField("data_location")  # they are inside again
    strip(proto)
    save_graph(proto, path)


def _transpose_after_products(graph: onnx.GraphProto) -> None:
    """Put a Transpose of leading axes behind the product with a matrix that it stood before.

    The two commute. Before it, onnxruntime (1.31 and 1.32) crashes when it makes a session with
    default options: its ``MatmulTransposeFusion`` swaps the Transpose with the Cast to float32 that
    the CPU needs, then finds that it cannot fuse operands of unequal rank, and leaves new nodes
    that it has not told the next pass (``NchwcTransformer``) of. Towers with
    ``nn.MultiheadAttention`` (L, B, D) have this in each block.
    """
    matrices = {tensor.name for tensor in graph.initializer if len(tensor.dims) == 2}
    makers = {name: node for node in graph.node for name in node.output}
    for index in reversed(range(len(graph.node))):
        product = graph.node[index]
        if product.op_type != "MatMul" or product.input[1] not in matrices:
            continue
        before = makers.get(product.input[0])
        if before is None or before.op_type != "Transpose":
            continue
        axes = list(before.attribute[0].ints)
        if axes[-1] != len(axes) - 1:
            continue
        (result,) = product.output
        product.input[0], product.output[0] = before.input[0], f"{result}_before"
        after = onnx.helper.make_node(
            "Transpose", [f"{result}_before"], [result], name=f"{product.name}_after", perm=axes
        )
        graph.node.insert(index + 1, after)
        if not consumers(graph, before.output[0]):
            graph.node.remove(before)


_CALIBRATED = (
    "Conv",
    "MatMul",
    "Gemm",
    "Add",
    "Relu",
    "Clip",
    "MaxPool",
    "AveragePool",
    "GlobalAveragePool",
)
_DYNAMIC = ("MatMul", "Gather")
_BATCH = 8  # pictures run at once while ranges are learned


def write_int8(
    path: Path, plain: Path, pictures: NDArray[np.float32], *, calibrate: bool | None = None
) -> None:
    """Write ``path`` from the float32 file ``plain``. Inputs and outputs stay float32.

    Args:
        pictures: (N, 3, H, W) as the tower takes them; only read where ranges are learned.
        calibrate: learn ranges beforehand; absent: where the tower convolves, which measures better
            (``python -m tests.bench onnx``).
    """
    from onnxruntime.quantization import QuantType, quantize_dynamic, quantize_static

    learns = learns_ranges(plain) if calibrate is None else calibrate
    with tempfile.TemporaryDirectory(prefix=".int8-", dir=path.parent) as scratch:
        aside = _set_aside(plain, scratch, lambda proto: _prepare(proto, split=not learns))
        if learns:
            quantize_static(
                aside,
                path,
                _Pictures(read_onnx(plain).inputs[0], pictures),
                op_types_to_quantize=list(_CALIBRATED),
                per_channel=True,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
            )
        else:
            with _inferred_once():
                quantize_dynamic(aside, path, op_types_to_quantize=list(_DYNAMIC), per_channel=True)
    proto = onnx.load(path)
    strip(proto)
    save_graph(proto, path)


def _prepare(proto: onnx.ModelProto, *, split: bool) -> None:
    # The mark of onnxruntime's own preparation, without which it warns: there is nothing to fold.
    proto.metadata_props.add(key="onnx.quant.pre_process", value="onnxruntime.quant")
    if split:
        _split_gemm(proto.graph)


@contextmanager
def _inferred_once() -> Iterator[None]:
    """Within, onnxruntime's quantiser takes a model whose shapes it has inferred as it is: it would
    copy it twice to infer them again, behind a change of Gemms of which none are left."""
    from onnxruntime.quantization import onnx_quantizer

    again = onnx_quantizer.save_and_reload_model_with_shape_infer
    onnx_quantizer.save_and_reload_model_with_shape_infer = lambda model: model
    try:
        yield
    finally:
        onnx_quantizer.save_and_reload_model_with_shape_infer = again


def learns_ranges(plain: Path) -> bool:
    """Whether :func:`write_int8` reads pictures for this float32 file: most of its weights are of
    convolutions."""
    graph = read_onnx(plain)
    sizes = {tensor.name: math.prod(tensor.dims) for tensor in graph.tensors}
    totals = {"Conv": 0, "MatMul": 0, "Gemm": 0}
    for node in graph.nodes:
        if node.op in totals:
            totals[node.op] += sizes.get(node.inputs[1], 0)
    return 2 * totals["Conv"] > sum(totals.values())


class _Pictures:
    """onnxruntime's ``CalibrationDataReader``: one batch a call, then None."""

    def __init__(self, name: str, pictures: NDArray[np.float32]) -> None:
        self._batches: Iterator[NDArray[np.float32]] = (
            pictures[start : start + _BATCH] for start in range(0, len(pictures), _BATCH)
        )
        self._name = name

    def get_next(self) -> dict[str, NDArray[np.float32]] | None:
        batch = next(self._batches, None)
        return None if batch is None else {self._name: batch}


def _split_gemm(graph: onnx.GraphProto) -> None:
    """Write each Gemm as MatMul and Add: onnxruntime has no Gemm whose ranges are taken as it runs.

    The exporter's have alpha and beta of 1, and the weight as it is or transposed.
    """
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    for index in reversed(range(len(graph.node))):
        node = graph.node[index]
        if node.op_type != "Gemm" or node.input[1] not in tensors:
            continue
        settings = {item.name: onnx.helper.get_attribute_value(item) for item in node.attribute}
        if settings.get("transA") or {settings.get("alpha", 1), settings.get("beta", 1)} != {1}:
            continue
        (result,) = node.output
        weight = onnx.numpy_helper.to_array(tensors[node.input[1]])
        if settings.get("transB"):
            weight = np.ascontiguousarray(weight.T)
        graph.initializer.append(onnx.numpy_helper.from_array(weight, f"{result}_weight"))
        bias = [name for name in node.input[2:] if name]
        product = f"{result}_product" if bias else result
        parts = [
            onnx.helper.make_node(
                "MatMul",
                [node.input[0], f"{result}_weight"],
                [product],
                name=f"{node.name}_product",
            )
        ]
        if bias:
            parts.append(
                onnx.helper.make_node("Add", [product, *bias], [result], name=f"{node.name}_bias")
            )
        graph.node.remove(node)
        for part in reversed(parts):
            graph.node.insert(index, part)
    used = {name for node in graph.node for name in node.input}
    for tensor in list(graph.initializer):
        if tensor.name not in used:
            graph.initializer.remove(tensor)


def _main(name: str, path: Path, plain: Path, shown: Path) -> None:
    if name == "fp16":
        write_half(path, plain)
    else:
        pictures = np.load(shown) if shown.is_file() else np.zeros((0, 3, 1, 1), np.float32)
        write_int8(path, plain, pictures)


if __name__ == "__main__":
    _main(sys.argv[1], *map(Path, sys.argv[2:]))
