"""A graph's bytes are protobuf's own, written a weight at a time."""

from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper

from ptft.onnx.graph_file import save_graph


def test_what_is_written_is_what_protobuf_would_write(tmp_path: Path) -> None:
    sizes = (0, 1, 40, 200, 70_000)  # lengths of one byte, of two, of three
    weights = [
        numpy_helper.from_array(np.arange(size, dtype=np.float32), f"w{size}") for size in sizes
    ]
    picture, row = (
        helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["batch", 1])
        for name in ("picture", "row")
    )
    constant = numpy_helper.from_array(np.ones(3, np.int64), "inside")
    nodes = [
        helper.make_node("Constant", [], ["one"], value=constant),
        helper.make_node("Add", ["picture", "w1"], ["row"], name="sum"),
    ]
    graph = helper.make_graph(nodes, "tower", [picture], [row], weights, "what it is", [picture])
    model = helper.make_model(graph, producer_name="ptft", doc_string="of a test")
    model.metadata_props.add(key="a", value="b")
    model.graph.metadata_props.add(key="c", value="d")
    for proto in (model, onnx.ModelProto(graph=onnx.GraphProto(name="empty"))):
        save_graph(proto, tmp_path / "folder" / "tower.onnx")
        written = (tmp_path / "folder" / "tower.onnx").read_bytes()
        assert written == proto.SerializeToString(deterministic=True)
