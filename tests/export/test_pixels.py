"""``onnx/preprocess.onnx`` against Pillow, for every way of resizing that a model can have."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from PIL import Image, ImageFilter

from ptft.errors import ParityError
from ptft.export.pixels import check_preprocess, write_preprocess
from ptft.preprocess import ImagePreprocess

SIZES = ((48, 64), (64, 48), (640, 480), (333, 90), (31, 29), (32, 32), (7, 20), (1, 9), (250, 301))
CONFIGS: tuple[dict[str, Any], ...] = (
    {"size": (32, 32)},
    {"size": (64, 64), "interpolation": "bilinear"},
    {"size": (48, 80)},
    {"size": (48, 80), "interpolation": "bilinear"},  # open_clip resizes this one bicubically
    {"size": (40, 56), "resize_mode": "squash"},
    {"size": (40, 40), "resize_mode": "squash", "interpolation": "bilinear"},
    {"size": (64, 64), "resize_mode": "longest", "fill_color": 127},
    {"size": (33, 64), "resize_mode": "longest", "interpolation": "bilinear"},
)


@pytest.mark.parametrize("config", CONFIGS, ids=str)
def test_the_pixels_are_pillows(config: dict[str, Any], tmp_path: Path) -> None:
    preprocess = ImagePreprocess(std=(0.3, 0.2, 0.25), **config)
    path = tmp_path / "preprocess.onnx"
    write_preprocess(preprocess, path)
    session = onnxruntime.InferenceSession(path)
    rng = np.random.default_rng(0)
    # Bilinear weights are often whole tenths, so that sums fall on halves, in both passes.
    allowed, share = (2.01, 0.03) if preprocess.interpolation == "bilinear" else (1.01, 0.01)
    different = total = 0
    for height, width in SIZES:
        noise = Image.fromarray(rng.integers(0, 256, (height, width, 3), np.uint8))
        picture = noise.filter(ImageFilter.GaussianBlur(1))
        (found,) = session.run(["pixel_values"], {"image": np.asarray(picture)})
        wanted = preprocess(picture)
        assert found.dtype == np.float32
        assert found.shape == (1, *wanted.shape)
        difference = np.abs(found[0] - wanted) * 255 * np.array(preprocess.std)[:, None, None]
        assert difference.max() < allowed, (height, width)
        different += int((difference > 0.5).sum())
        total += difference.size
    assert different < share * total


def test_a_square_picture_of_the_models_size_is_only_scaled(tmp_path: Path) -> None:
    preprocess = ImagePreprocess(size=(24, 24))
    write_preprocess(preprocess, tmp_path / "p.onnx")
    pixels = np.random.default_rng(0).integers(0, 256, (24, 24, 3), np.uint8)
    session = onnxruntime.InferenceSession(tmp_path / "p.onnx")
    (found,) = session.run(None, {"image": pixels})
    assert np.array_equal(found[0], preprocess.normalise(pixels))


def test_another_models_file_is_noticed(tmp_path: Path) -> None:
    preprocess = ImagePreprocess(size=(24, 24))
    for name in ("a.onnx", "b.onnx"):
        write_preprocess(preprocess, tmp_path / name)
    assert (tmp_path / "a.onnx").read_bytes() == (tmp_path / "b.onnx").read_bytes()
    figures = check_preprocess(preprocess, tmp_path / "a.onnx")
    assert figures["largest"] < 1.01
    assert figures["share"] < 0.01
    model = onnx.load(tmp_path / "a.onnx")
    assert model.doc_string == (
        "image: uint8 (height, width, 3), RGB of 8 bits: upright by EXIF, deeper samples scaled to "
        "8 bits, transparent pixels on #ffffff"
    )
    shape = model.graph.input[0].type.tensor_type.shape
    assert [dim.dim_param or dim.dim_value for dim in shape.dim] == ["height", "width", 3]
    other = ImagePreprocess(size=(24, 24), interpolation="bilinear")
    with pytest.raises(ParityError, match="a pixel differs by"):
        check_preprocess(other, tmp_path / "a.onnx")
