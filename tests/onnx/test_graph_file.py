"""A graph's bytes are protobuf's and onnx's own, written a weight at a time."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from ptft.onnx import graph_file
from ptft.onnx.graph_file import save_graph


def model() -> onnx.ModelProto:
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
    proto = helper.make_model(graph, producer_name="ptft", doc_string="of a test")
    proto.metadata_props.add(key="a", value="b")
    proto.graph.metadata_props.add(key="c", value="d")
    return proto


def outside(folder: Path, least: int) -> onnx.ModelProto:
    """The model as it is read where its weights of so many bytes lie beside it."""
    folder.mkdir()
    path = folder / "plain.onnx"
    onnx.save(model(), path, save_as_external_data=True, location="weights", size_threshold=least)
    proto = onnx.load(path, load_external_data=False)
    assert any(tensor.external_data for tensor in proto.graph.initializer)
    return proto


def test_what_is_written_is_what_protobuf_would_write(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "tower.onnx"
    for proto in (model(), onnx.ModelProto(graph=onnx.GraphProto(name="empty"))):
        save_graph(proto, path)
        assert path.read_bytes() == proto.SerializeToString(deterministic=True)
    for least in (0, 100):
        beside = tmp_path / f"beside{least}"
        save_graph(outside(beside, least), path, beside)
        assert path.read_bytes() == model().SerializeToString(deterministic=True)


def test_weights_outside_are_written_as_onnx_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(graph_file, "EXTERNAL_OVER", 1000)
    (tmp_path / "a").mkdir()
    onnx.save(
        *(model(), tmp_path / "a" / "tower.onnx"),
        save_as_external_data=True,
        location="tower.onnx_data",
        size_threshold=graph_file.EXTERNAL_EACH,
    )
    beside = tmp_path / "beside"
    for proto, place in ((model(), None), (outside(beside, 0), beside)):
        for _ in range(2):  # written over what is there
            save_graph(proto, tmp_path / "b" / "tower.onnx", place)
            for name in ("tower.onnx", "tower.onnx_data"):
                written = (tmp_path / "b" / name).read_bytes()
                assert written == (tmp_path / "a" / name).read_bytes()
            proto, place = onnx.load(tmp_path / "b" / "tower.onnx"), None
