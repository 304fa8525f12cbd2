"""``onnx/preprocess.onnx``: what goes before the image tower, so that every language has it alike.

uint8 (height, width, 3), red first, of any size -> float32 (1, 3, H, W), ``pixel_values``, equal to
:class:`ptft.preprocess.ImagePreprocess` behind its ``reading``: by then the picture is upright RGB
of 8 bits, its transparent pixels on their background, which the file's ``doc_string`` says.

Pillow resizes rows, then columns, with fixed-point weights, and rounds to bytes after each;
onnxruntime's antialiased ``Resize`` of uint8 does the same with weights that it computes in
float32: a pixel in some thousands differs by 1 of 255, rarely 2.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from ptft.errors import ParityError
from ptft.export.graph import OPSET
from ptft.export.parity import run_apart
from ptft.preprocess import ImagePreprocess

__all__ = ["check_preprocess", "write_preprocess"]

_MODES = {"bicubic": "cubic", "bilinear": "linear"}


def write_preprocess(preprocess: ImagePreprocess, path: Path) -> None:
    """Write the graph of a model's preprocessing.

    Unlike ``ImagePreprocess`` it refuses no picture: one that is a pixel high is resized to a size
    that may not fit the memory.
    """
    build = _Builder()
    chw = build("Transpose", "image", perm=[2, 0, 1])
    nchw = build("Unsqueeze", chw, build.ints(0))
    mode = preprocess.interpolation
    if preprocess.resize_mode == "squash":
        size = build.ints(*preprocess.size)
    elif preprocess.resize_mode == "shortest" and preprocess.size[0] == preprocess.size[1]:
        size = _shortest_square(build, preprocess.size[0])
    else:
        size = _by_ratio(build, preprocess)
        if preprocess.resize_mode == "shortest":
            mode = "bicubic"  # as ImagePreprocess has it
    pixels = _resized(build, nchw, size, mode)
    if preprocess.resize_mode != "squash":
        fill = preprocess.fill_color if preprocess.resize_mode == "longest" else 0
        pixels = _center_crop_or_pad(build, pixels, size, preprocess.size, fill)
    build("Identity", _normalised(build, pixels, preprocess), name="pixel_values")
    height, width = preprocess.size
    words = preprocess.reading.words
    graph = helper.make_graph(
        build.nodes,
        "preprocess",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, ["height", "width", 3])],
        [helper.make_tensor_value_info("pixel_values", TensorProto.FLOAT, [1, 3, height, width])],
        build.constants,
    )
    model = helper.make_model(
        graph,
        producer_name="ptft",
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=10,
        doc_string=f"image: uint8 (height, width, 3), {words}",
    )
    onnx.checker.check_model(model, full_check=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(model.SerializeToString(deterministic=True))


def check_preprocess(preprocess: ImagePreprocess, path: Path) -> dict[str, float]:
    """Run the file in a process of its own on noise of several sizes, and hold it against Python.

    Returns:
        ``largest``: difference of a pixel, in units of 1/255 of full brightness; ``share``: of the
        pixels that differ by half such a unit or more.

    Raises:
        ExportError: onnxruntime cannot load or run the file.
        ParityError: a pixel differs by more than 2.
    """
    rng = np.random.default_rng(0)
    sizes = ((48, 64), (333, 250), (31, 29), (200, 301))
    pictures = {
        f"{height}x{width}": rng.integers(0, 256, (height, width, 3), np.uint8)
        for height, width in sizes
    }
    found = run_apart(path, pictures)
    units = 255 * np.array(preprocess.std)[:, None, None]
    differences = np.stack(
        [
            np.abs(found[name][0] - preprocess(Image.fromarray(picture))) * units
            for name, picture in pictures.items()
        ]
    )
    if not differences.max() <= 2.01:  # NaN is beyond it too
        raise ParityError(
            f"{path.name}: a pixel differs by {differences.max():.2f} of 255; allowed: 2"
        )
    return {"largest": float(differences.max()), "share": float((differences >= 0.5).mean())}


class _Builder:
    """Nodes and constants of a graph, in order; a call adds a node and gives its output's name."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def __call__(self, kind: str, *inputs: str, name: str = "", **settings: Any) -> str:
        name = name or f"{kind.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [name], name=name, **settings))
        return name

    def constant(self, values: np.ndarray) -> str:
        name = f"constant_{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(values, name))
        return name

    def ints(self, *values: int) -> str:
        return self.constant(np.array(values, np.int64))

    def rounded(self, values: str) -> str:
        """float64 to int64, halves to even as Python has it."""
        return self("Cast", self("Round", values), to=TensorProto.INT64)


def _picture_size(build: _Builder) -> str:
    """int64 (2,): height and width of the picture."""
    return build("Slice", build("Shape", "image"), build.ints(0), build.ints(2))


def _shortest_square(build: _Builder, side: int) -> str:
    """int64 (2,): the shorter side is ``side``, the longer one is cut to a whole number."""
    size = _picture_size(build)
    short = build("ReduceMin", size, build.ints(0), keepdims=1)
    return build("Div", build("Mul", size, build.ints(side)), short)


def _by_ratio(build: _Builder, preprocess: ImagePreprocess) -> str:
    """int64 (2,): both sides by one ratio, so that the target is filled, or fits."""
    size = build("Cast", _picture_size(build), to=TensorProto.DOUBLE)
    ratios = build("Div", size, build.constant(np.array(preprocess.size, np.float64)))
    kind = "ReduceMax" if preprocess.resize_mode == "longest" else "ReduceMin"
    ratio = build(kind, ratios, build.ints(0), keepdims=1)
    return build("Max", build.rounded(build("Div", size, ratio)), build.ints(1))


def _resized(build: _Builder, pixels: str, size: str, mode: str) -> str:
    """uint8 (1, 3, h, w) to (1, 3, *size), each axis by a pass of its own, as Pillow does it.

    Pillow resizes rows first, but from 13.0 on columns first where the height shrinks by more than
    twice what the width does. Rounding between the passes makes the order count.
    """
    height, width = (build("Slice", _picture_size(build), *_row(build, axis)) for axis in (0, 1))
    new_height, new_width = (build("Slice", size, *_row(build, axis)) for axis in (0, 1))
    less = build("Sub", height, new_height)
    tall = build(
        "And",
        build("Greater", less, build.ints(0)),
        build("Greater", less, build("Mul", build("Sub", width, new_width), build.ints(2))),
    )
    first = build(
        "Where",
        tall,
        build("Concat", new_height, width, axis=0),
        build("Concat", height, new_width, axis=0),
    )
    for target in (first, size):
        pixels = build(
            "Resize",
            pixels,
            "",
            "",
            build("Concat", build.ints(1, 3), target, axis=0),
            antialias=1,
            coordinate_transformation_mode="half_pixel",
            cubic_coeff_a=-0.5,  # Pillow's
            exclude_outside=1,
            mode=_MODES[mode],
        )
    return pixels


def _row(build: _Builder, axis: int) -> tuple[str, str]:
    return build.ints(axis), build.ints(axis + 1)


def _center_crop_or_pad(
    build: _Builder, pixels: str, size: str, target: Sequence[int], fill: int
) -> str:
    """uint8 (1, 3, H, W) of ``size`` to ``target``: padded where too small, then cropped."""
    wanted = build.ints(*target)
    missing = build("Max", build("Sub", wanted, size), build.ints(0))
    before = build("Div", missing, build.ints(2))
    after = build("Sub", missing, before)
    pads = build("Concat", build.ints(0, 0), before, build.ints(0, 0), after, axis=0)
    padded = build("Pad", pixels, pads, build.constant(np.array(fill, np.uint8)), mode="constant")
    spare = build("Sub", build("Add", size, missing), wanted)
    half = build(
        "Mul",
        build("Cast", spare, to=TensorProto.DOUBLE),
        build.constant(np.array([0.5], np.float64)),
    )
    start = build.rounded(half)
    return build("Slice", padded, start, build("Add", start, wanted), build.ints(2, 3))


def _normalised(build: _Builder, pixels: str, preprocess: ImagePreprocess) -> str:
    """uint8 to float32 (1, 3, H, W), in the order of ``ImagePreprocess.normalise``."""
    scaled = build(
        "Div",
        build("Cast", pixels, to=TensorProto.FLOAT),
        build.constant(np.array(255, np.float32)),
    )
    mean, std = (
        build.constant(np.array(values, np.float32)[:, None, None])
        for values in (preprocess.mean, preprocess.std)
    )
    return build("Div", build("Sub", scaled, mean), std)
