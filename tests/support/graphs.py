"""ONNX graphs that no export writes, and folders that hold them as a stranger would."""

from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from ptft.artifact import ModelInfo, hash_files, read_model_info, write_model_info

__all__ = ["graph_file", "grown", "ints", "node", "put", "slow"]


def ints(name: str, *values: int) -> onnx.TensorProto:
    return numpy_helper.from_array(np.array(values, np.int64), name)


def graph_file(
    path: Path,
    nodes: list[onnx.NodeProto],
    tensors: list[onnx.TensorProto] | None = None,
    **more: Any,
) -> Path:
    """A file of a graph from ``x`` (batch, 4) to ``out``."""
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 4])],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, None)],
        tensors or [],
        **more,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])
    path.write_bytes(model.SerializeToString())
    return path


node = helper.make_node


def put(folder: Path, name: str, content: bytes) -> ModelInfo:
    """Another file, recorded as a stranger would."""
    (folder / name).write_bytes(content)
    info = replace(read_model_info(folder), files=hash_files(folder))
    write_model_info(folder, info)
    return info


def tower(folder: Path, nodes: list[onnx.NodeProto], *much: int) -> bytes:
    """An image tower that makes (batch, *much) ones, called big, of which it gives sums."""
    side = read_model_info(folder).image_size[0]
    before = [
        node("Shape", ["pixel_values"], ["s"], start=0, end=1),
        node("Concat", ["s", "much"], ["t"], axis=0),
        node("Expand", ["one", "t"], ["big"]),
    ]
    one = np.ones((1,) * (len(much) + 1), np.float32)
    axes = ints("axes", *range(2, len(much) + 1))
    tensors = [ints("much", *much), axes, numpy_helper.from_array(one, "one")]
    shape, given = ["batch", 3, side, side], ["batch", much[0]]
    graph = helper.make_graph(
        [*before, *nodes],
        "g",
        [helper.make_tensor_value_info("pixel_values", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("image_embeds", TensorProto.FLOAT, given)],
        tensors,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])
    model.ir_version = 10
    return bytes(model.SerializeToString())


def grown(folder: Path) -> bytes:
    """A tower of a kilobyte that takes 256 MiB for each picture."""
    last = node("ReduceSum", ["big", "axes"], ["image_embeds"], keepdims=0)
    return tower(folder, [last], 1024, 1024, 64)


def slow(folder: Path) -> bytes:
    """A tower of a few kilobytes that multiplies matrices for a minute."""
    names = ["big", *(f"m{index}" for index in range(200))]
    products = [node("MatMul", [one, "big"], [other]) for one, other in pairwise(names)]
    last = node("ReduceSum", [names[-1], "axes"], ["image_embeds"], keepdims=0)
    return tower(folder, [*products, last], 1024, 1024)
