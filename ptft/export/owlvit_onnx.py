"""``onnx/model.onnx`` of a detector: OWL-ViT in one file, which transformers.js looks for.

Both towers' files as they are, and between them how places meet texts (:mod:`ptft.onnx.boxes`), so
that nothing is exported twice. All pictures of a batch are asked for the same texts.
"""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper

from ptft.artifact import FolderFiles
from ptft.errors import ExportError, ParityError
from ptft.export.graph import OPSET
from ptft.model import DualEncoder
from ptft.onnx.boxes import MORE
from ptft.onnx.golden import TOLERANCE, Golden
from ptft.onnx.graph_file import save_graph, strip

__all__ = ["write_owlvit_onnx"]

_EPS = 1e-6  # as OWL-ViT normalises


def write_owlvit_onnx(model: DualEncoder, golden: Golden, folder: Path) -> float:
    """Write the file from the float32 files of the towers, and hold it against the golden boxes.

    Inputs ``input_ids`` and ``attention_mask`` int64 (Q, L), which is not read, since padding
    stands behind a text's end; ``pixel_values`` float32 (B, 3, H, W). Outputs ``logits`` (B, N, Q)
    and ``pred_boxes`` (B, N, 4), centre x, centre y, width and height as shares.

    Returns:
        The largest difference; logits count by the size of the largest.

    Raises:
        ParityError: it is beyond the tolerance of a float32 file.
        ExportError: onnxruntime cannot run it.
    """
    path = folder / FolderFiles.OWLVIT_ONNX
    text = onnx.load(folder / FolderFiles.TEXT_ONNX)
    places = onnx.load(folder / FolderFiles.DETECT_ONNX)
    text.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "queries"
    text.graph.output[0].type.tensor_type.shape.dim[0].dim_param = "queries"
    for prefix, proto in (("text/", text), ("places/", places)):
        onnx.compose.add_prefix(proto, prefix, rename_inputs=False, inplace=True)
    merged = _joined(text, places)
    strip(merged)
    save_graph(merged, path)
    return _worst(path, model, golden)


def _joined(text: onnx.ModelProto, places: onnx.ModelProto) -> onnx.ModelProto:
    (rows,), (queries,) = (one.graph.output for one in (places, text))
    ids, pixels = text.graph.input[0], places.graph.input[0]
    shape = ids.type.tensor_type.shape.dim
    mask = helper.make_tensor_value_info(
        "attention_mask", TensorProto.INT64, [dim.dim_param or dim.dim_value for dim in shape]
    )
    batch = rows.type.tensor_type.shape.dim[0].dim_param
    count = rows.type.tensor_type.shape.dim[1].dim_value
    outputs = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [batch, count, last])
        for name, last in (("logits", "queries"), ("pred_boxes", 4))
    ]
    nodes, constants = _meeting(rows.name, queries.name)
    graph = helper.make_graph(
        [*text.graph.node, *places.graph.node, *nodes],
        "tower",
        [ids, mask, pixels],
        outputs,
        [*text.graph.initializer, *places.graph.initializer, *constants],
    )
    opsets = [helper.make_opsetid("", OPSET)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=text.ir_version)


def _meeting(rows: str, queries: str) -> tuple[list[onnx.NodeProto], list[onnx.TensorProto]]:
    """Places (B, N, D + 6) and texts (Q, D) to logits and boxes, as :func:`place_logits` has it."""
    ends = {"start": 0, "shift": -MORE, "scale": 1 - MORE, "boxes": 2 - MORE, "end": 2**31 - 1}
    constants = [
        onnx.numpy_helper.from_array(np.array([value], np.int64), f"meet/{name}")
        for name, value in {**ends, "last": -1}.items()
    ]
    constants.append(onnx.numpy_helper.from_array(np.array(_EPS, np.float32), "meet/eps"))

    def cut(begin: str, end: str, output: str) -> onnx.NodeProto:
        inputs = [rows, f"meet/{begin}", f"meet/{end}", "meet/last"]
        return helper.make_node("Slice", inputs, [output])

    def normed(name: str, output: str) -> list[onnx.NodeProto]:
        length = f"{output}/length"
        return [
            helper.make_node("ReduceL2", [name, "meet/last"], [length], keepdims=1),
            helper.make_node("Add", [length, "meet/eps"], [f"{length}/above"]),
            helper.make_node("Div", [name, f"{length}/above"], [output]),
        ]

    nodes = [
        cut("start", "shift", "meet/embedded"),
        cut("shift", "scale", "meet/shifts"),
        cut("scale", "boxes", "meet/scales"),
        cut("boxes", "end", "pred_boxes"),
        *normed("meet/embedded", "meet/places"),
        *normed(queries, "meet/queries"),
        helper.make_node("Transpose", ["meet/queries"], ["meet/columns"], perm=[1, 0]),
        helper.make_node("MatMul", ["meet/places", "meet/columns"], ["meet/cosines"]),
        helper.make_node("Add", ["meet/cosines", "meet/shifts"], ["meet/shifted"]),
        helper.make_node("Mul", ["meet/shifted", "meet/scales"], ["logits"]),
    ]
    return nodes, constants


def _worst(path: Path, model: DualEncoder, golden: Golden) -> float:
    import onnxruntime

    assert golden.detect_logits is not None and golden.detect_boxes is not None
    try:
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        pixels = model.spec.preprocess.normalise(golden.pixels)
        ids = golden.tokens
        inputs = {"input_ids": ids, "attention_mask": np.ones_like(ids), "pixel_values": pixels}
        logits, boxes = session.run(["logits", "pred_boxes"], inputs)
    except Exception as error:  # onnxruntime raises kinds of its own
        raise ExportError(f"{path.name}: onnxruntime cannot run it: {error}") from error
    scale = max(1.0, float(np.abs(golden.detect_logits).max()))
    worst = max(
        float(np.abs(logits - golden.detect_logits).max()) / scale,
        float(np.abs(boxes - golden.detect_boxes).max()),
    )
    if not worst <= TOLERANCE["fp32"]:  # NaN is beyond it too
        raise ParityError(
            f"{path.name}: boxes or logits differ from the model's by {worst:.2e}; allowed: "
            f"{TOLERANCE['fp32']:g}"
        )
    return worst
