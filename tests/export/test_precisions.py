"""float16 and 8-bit towers: how they are made, what they cost, and when they are left out."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from ptft.artifact import FolderFiles, tower_file
from ptft.errors import UsageError
from ptft.export import export_model
from ptft.export.graph import Tower, write_graph
from ptft.export.parity import run_apart
from ptft.export.quality import Quality
from ptft.export.samples import calibration_pictures
from ptft.export.towers import image_tower, write_towers
from ptft.onnx import graph_file, quantise
from ptft.onnx.processor import saturation_note
from ptft.onnx.quantise import learns_ranges, write_half, write_int8
from ptft.recipe import Recipe
from ptft.recipe.load import parse_recipe
from tests.support import tiny


class Attention(torch.nn.Module):
    """(B, 5, 8) -> (B, 8): what open_clip's towers have, a Transpose before the products."""

    def __init__(self) -> None:
        super().__init__()
        self.attend = torch.nn.MultiheadAttention(8, 2)
        self.norm = torch.nn.LayerNorm(8)
        self.out = torch.nn.Linear(8, 8)

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        x = self.norm(rows).transpose(0, 1)
        x = self.attend(x, x, x, need_weights=False)[0].transpose(0, 1)
        return self.out(x.mean(dim=1))


@pytest.fixture(scope="module")
def attention(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The module above as a float32 file; exporting takes seconds."""
    path = tmp_path_factory.mktemp("attention") / "plain.onnx"
    torch.manual_seed(0)
    tower = Tower(Attention().eval(), "rows", "embeds", torch.zeros(2, 5, 8), {0: ("batch", None)})
    write_graph(tower, path)
    return path


def rows(count: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((count, 5, 8)).astype(np.float32)


def scenes_recipe(**evaluate: object) -> Recipe:
    values = {
        "name": "x",
        "model": {"name": "ViT-B-32"},
        "data": {"kind": "scenes", "size": 32, "train": 16, "val": 8, "test": 16},
        "objective": {"kind": "clip"},
        "optim": {"samples_seen": 64, "global_batch": 8, "precision": "fp32"},
        "evaluate": [{"kind": "retrieval", "name": "drawn", "split": "test", **evaluate}],
    }
    return parse_recipe(values, where="test")


def test_a_transpose_moves_behind_the_product_and_changes_nothing(
    attention: Path, tmp_path: Path
) -> None:
    proto = onnx.load(attention)

    def before_products(proto: onnx.ModelProto) -> int:
        made = {name: node.op_type for node in proto.graph.node for name in node.output}
        flat = {tensor.name for tensor in proto.graph.initializer if len(tensor.dims) == 2}
        products = [node for node in proto.graph.node if node.op_type == "MatMul"]
        return sum(made.get(n.input[0]) == "Transpose" for n in products if n.input[1] in flat)

    assert before_products(proto) == 1, "else this test shows nothing"
    quantise._transpose_after_products(proto.graph)
    assert before_products(proto) == 0
    onnx.checker.check_model(proto, full_check=True)
    onnx.save(proto, tmp_path / "moved.onnx")
    outputs = [
        onnxruntime.InferenceSession(path).run(None, {"rows": rows(3)})[0]
        for path in (attention, tmp_path / "moved.onnx")
    ]
    assert np.abs(outputs[0] - outputs[1]).max() < 1e-6


@pytest.mark.parametrize("precision", ["fp16", "int8"])
@pytest.mark.parametrize("external", [False, True])
def test_a_file_of_each_precision_loads_in_a_process_of_its_own(
    attention: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    precision: str,
    external: bool,
) -> None:
    """At any batch, also with weights outside: the bug of onnxruntime that ``half`` goes around
    ends the process."""
    path = tmp_path / "other.onnx"
    if external:
        monkeypatch.setattr(graph_file, "EXTERNAL_OVER", 100)
        monkeypatch.setattr(graph_file, "EXTERNAL_EACH", 100)
    for number in range(2):
        if precision == "fp16":
            write_half(path, attention)
        else:
            write_int8(path, attention, np.zeros((1, 5, 8), np.float32))
        files = sorted(file.name for file in tmp_path.glob("other*"))
        assert files == (["other.onnx", "other.onnx_data"] if external else ["other.onnx"])
        data = b"".join((tmp_path / name).read_bytes() for name in files)
        if number == 0:
            first = data
    assert data == first, "bit for bit the same again"
    batches = {"one": rows(1), "four": rows(4)}
    expected, found = run_apart(attention, batches), run_apart(path, batches)
    for name, batch in batches.items():
        assert found[name].dtype == np.float32
        assert found[name].shape == (len(batch), 8)
        difference = np.abs(found[name] - expected[name]).max()
        assert 0 < difference < (2e-3 if precision == "fp16" else 5e-2)
    kinds = {tensor.data_type for tensor in onnx.load(path).graph.initializer}
    assert (onnx.TensorProto.FLOAT16 if precision == "fp16" else onnx.TensorProto.INT8) in kinds


def test_a_gemm_is_split_into_what_can_be_quantised(attention: Path, tmp_path: Path) -> None:
    proto = onnx.load(attention)
    assert any(node.op_type == "Gemm" for node in proto.graph.node)
    quantise._split_gemm(proto.graph)
    assert not any(node.op_type == "Gemm" for node in proto.graph.node)
    onnx.checker.check_model(proto, full_check=True)
    onnx.save(proto, tmp_path / "split.onnx")
    outputs = [
        onnxruntime.InferenceSession(path).run(None, {"rows": rows(3)})[0]
        for path in (attention, tmp_path / "split.onnx")
    ]
    assert np.abs(outputs[0] - outputs[1]).max() < 1e-6


def test_a_convolutional_tower_is_calibrated_on_pictures(tmp_path: Path) -> None:
    model = tiny.build(tiny.towers_section(image="test_resnet"))
    plain = tmp_path / "vision_model.onnx"
    write_graph(image_tower(model), plain)
    assert learns_ranges(plain)
    pictures = tiny.pictures(model, 9).numpy()
    write_int8(tmp_path / "a.onnx", plain, pictures)
    write_int8(tmp_path / "b.onnx", plain, pictures / 10)
    assert (tmp_path / "a.onnx").read_bytes() != (tmp_path / "b.onnx").read_bytes()
    proto = onnx.load(tmp_path / "a.onnx")
    tensors = {tensor.name: tensor for tensor in proto.graph.initializer}
    scales = [
        tensors[node.input[1]].dims
        for node in proto.graph.node
        if node.op_type == "DequantizeLinear"
        and node.input[0] in tensors
        and len(tensors[node.input[0]].dims) == 4
    ]
    assert scales, "weights of convolutions are stored in 8 bits"
    assert all(len(dims) == 1 for dims in scales), "with one scale a channel"
    with torch.no_grad():
        wanted = model.encode_image(torch.from_numpy(pictures)).numpy()
    found = run_apart(tmp_path / "a.onnx", {"x": pictures})["x"]
    cosine = (
        (found * wanted).sum(1) / np.linalg.norm(found, axis=1) / np.linalg.norm(wanted, axis=1)
    )
    assert cosine.min() > 0.98


def test_what_costs_too_much_is_left_out_and_the_reason_said(tmp_path: Path) -> None:
    model = tiny.build(tiny.arch_section())
    recipe = scenes_recipe()
    quality = Quality(model, recipe)
    assert quality.reason is None
    written = write_towers(
        model, tmp_path, precisions=("fp32", "int8"), quality=quality, max_loss=-101
    )
    assert set(written.parity) == {FolderFiles.TEXT_ONNX, FolderFiles.VISION_ONNX}
    for name, parity in written.parity.items():
        assert parity.lost == 0, "float32 files rank as torch does"
        assert set(parity.change) == {
            f"drawn {way}_recall@{k}" for way in ("i2t", "t2i") for k in (1, 5, 10)
        }
        file = tower_file(name, "int8")
        reason = saturation_note("int8") or "points of recall or accuracy; allowed: -101"
        assert reason in written.left_out[file]
        assert not (tmp_path / file).exists()
    # The figures come from the file: with its weights at 0, all is alike and nothing is found.
    proto = onnx.load(tmp_path / FolderFiles.VISION_ONNX)
    for tensor in proto.graph.initializer:
        if tensor.data_type == onnx.TensorProto.FLOAT and len(tensor.dims) > 1:
            tensor.raw_data = bytes(len(tensor.raw_data))
    onnx.save(proto, tmp_path / "spoilt.onnx")
    change = quality.change(image=tmp_path / "spoilt.onnx")
    plain = quality._plain["drawn"]
    assert change.figures == {f"drawn {key}": -value for key, value in plain.items()}
    assert change.lost == pytest.approx(100 * sum(plain.values()) / len(plain))
    assert change.lost > 10


def test_what_cannot_be_measured_says_why() -> None:
    model = tiny.build(tiny.arch_section())
    assert Quality(model, None).reason == "no recipe is recorded"
    recipe = scenes_recipe()
    assert Quality(model, recipe).reason is None
    empty = recipe.model_copy(update={"evaluate": []})
    assert Quality(model, empty).reason == "the recipe names no evaluation"
    assert Quality(model, recipe, measure=False).reason == "the export was told not to"
    absent = {"kind": "shards", "test": "/secret/place/{0..1}.tar", "captions": ["{name}"]}
    gone = scenes_recipe(data=absent)
    reason = Quality(model, gone).reason
    assert reason == "the data of the recipe's evaluations is not here"
    assert not any(part.training for part in model.modules()), (
        "measuring leaves the model as it was"
    )
    pictures = calibration_pictures(model, recipe)
    assert pictures is not None
    assert pictures.shape == (16, 3, 32, 32)
    assert calibration_pictures(model, None) is None


def test_an_unknown_precision_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"precision 'int4'.*int8"):
        export_model(tmp_path, tmp_path / "out", precisions=("int4",))
    assert list(tmp_path.iterdir()) == []
