"""ONNX files that hang, grow or read elsewhere are refused before a session is made."""

import json
import resource
import shutil
from dataclasses import replace
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

from ptft.artifact import FolderFiles, read_model_info, write_model_info
from ptft.errors import ArtifactError
from ptft.onnx import trial
from ptft.onnx.check import check_onnx_file
from ptft.onnx.file import read_onnx
from ptft.onnx.limits import Limits
from ptft.onnx.trial import try_model
from serving.model import load_model
from serving.settings import Settings
from tests.support.graphs import graph_file, grown, ints, node, put, slow


def loop() -> list[onnx.NodeProto]:
    """A loop whose condition stays true."""
    body = helper.make_graph(
        [node("Identity", ["c"], ["c2"]), node("Identity", ["v"], ["v2"])],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("c", TensorProto.BOOL, []),
            helper.make_tensor_value_info("v", TensorProto.FLOAT, None),
        ],
        [
            helper.make_tensor_value_info("c2", TensorProto.BOOL, []),
            helper.make_tensor_value_info("v2", TensorProto.FLOAT, None),
        ],
    )
    return [node("Loop", ["", "true", "x"], ["out"], body=body)]


def test_a_loop_without_an_end(tmp_path: Path) -> None:
    true = helper.make_tensor("true", TensorProto.BOOL, [], [True])
    path = graph_file(tmp_path / "a.onnx", loop(), [true])
    with pytest.raises(ArtifactError, match="operator 'Loop'; allowed: those of ONNX"):
        check_onnx_file(path)


@pytest.mark.parametrize(
    ("nodes", "tensors", "said"),
    [
        ([node("ConstantOfShape", ["s"], ["out"])], [ints("s", 2**36)], "makes 68719476736 values"),
        ([node("Expand", ["x", "s"], ["out"])], [ints("s", 2**20, 2**20, 4)], "Expand: makes"),
        ([node("Tile", ["x", "s"], ["out"])], [ints("s", 2**34, 1)], "Tile: makes"),
        ([node("Pad", ["x", "s"], ["out"])], [ints("s", 0, 0, 0, 2**40)], "Pad: makes"),
        (
            [node("ReduceSum", ["x"], ["n"]), node("Cast", ["n"], ["m"], to=7),
             node("Expand", ["x", "m"], ["out"])],
            [],
            "Expand: a size that follows from what is in the input",
        ),
        (
            [node("Cast", ["x"], ["m"], to=7), node("Slice", ["x", "m", "m"], ["p"]),
             node("Shape", ["p"], ["q"]), node("ConstantOfShape", ["q"], ["out"])],
            [],
            "Slice: a size that follows",
        ),
        ([node("NonZero", ["x"], ["out"])], [], "operator 'NonZero'"),
        ([node("RandomNormalLike", ["x"], ["out"])], [], "operator 'RandomNormalLike'"),
        ([node("Attention", ["x"], ["out"], domain="com.microsoft")], [], "'com.microsoft.Att"),
        ([node("Relu", ["y"], ["out"])], [], "reads 'y', which nothing in it makes"),
    ],
)  # fmt: skip
def test_a_graph_that_takes_what_it_likes(
    nodes: list[onnx.NodeProto], tensors: list[onnx.TensorProto], said: str, tmp_path: Path
) -> None:
    with pytest.raises(ArtifactError, match=said):
        check_onnx_file(graph_file(tmp_path / "a.onnx", nodes, tensors))


def test_a_weight_that_is_not_there(tmp_path: Path) -> None:
    tensor = onnx.TensorProto(name="w", dims=[2**36], data_type=TensorProto.FLOAT)
    identity = [node("Identity", ["x"], ["out"])]
    with pytest.raises(ArtifactError, match="'w': 68719476736 values; the file has 0 bytes"):
        check_onnx_file(graph_file(tmp_path / "a.onnx", identity, [tensor]))
    tensor.raw_data = bytes(8)
    with pytest.raises(ArtifactError, match="takes 274877906944 bytes; it has 8"):
        check_onnx_file(graph_file(tmp_path / "a.onnx", identity, [tensor]))
    tensor.dims[:] = [-1]
    with pytest.raises(ArtifactError, match=r"shape \[-1\]"):
        check_onnx_file(graph_file(tmp_path / "a.onnx", identity, [tensor]))
    constant = onnx.TensorProto(dims=[2**36], data_type=TensorProto.FLOAT)
    with pytest.raises(ArtifactError, match="68719476736 values"):
        check_onnx_file(
            graph_file(tmp_path / "a.onnx", [node("Constant", [], ["out"], value=constant)])
        )


def external(location: str, **more: str) -> onnx.TensorProto:
    tensor = onnx.TensorProto(name="w", dims=[2], data_type=TensorProto.FLOAT)
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in {"location": location, **more}.items():
        tensor.external_data.add(key=key, value=value)
    return tensor


@pytest.mark.parametrize(
    ("tensor", "said"),
    [
        (external("/etc/passwd"), "in '/etc/passwd'; allowed: a.onnx_data"),
        (external("../x"), r"in '\.\./x'; allowed"),
        (external("a.onnx_data", length="8"), "absent or not recorded"),
        (external("a.onnx_data", offset="999"), "has 8 of them at 999"),
        (external("a.onnx_data", offset="-1"), "offset '-1'"),
        (external("a.onnx_data", length="99999999999"), "has 99999999999 of them"),
    ],
)
def test_weights_in_another_file(tensor: onnx.TensorProto, said: str, tmp_path: Path) -> None:
    path = graph_file(tmp_path / "a.onnx", [node("Identity", ["x"], ["out"])], [tensor])
    path.with_name("a.onnx_data").write_bytes(bytes(8))
    recorded = {"a.onnx"} if "recorded" in said else {"a.onnx", "a.onnx_data"}
    with pytest.raises(ArtifactError, match=said):
        check_onnx_file(path, recorded=recorded)


def test_functions_and_sparse_tensors(tmp_path: Path) -> None:
    path = graph_file(tmp_path / "a.onnx", [node("Identity", ["x"], ["out"])])
    model = onnx.load(path)
    model.functions.append(
        helper.make_function("d", "f", ["a"], ["b"], [node("Relu", ["a"], ["b"])],
                             [helper.make_opsetid("", 18)])
    )  # fmt: skip
    path.write_bytes(model.SerializeToString())
    with pytest.raises(ArtifactError, match="functions of its own"):
        check_onnx_file(path)


@pytest.mark.parametrize("data", [b"", b"\x08", b"\x3a\xff\xff\xff\xff\x0f", b"\xff" * 40, b"abc"])
def test_bytes_that_are_no_graph(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.onnx").write_bytes(data)
    with pytest.raises(ArtifactError, match="no ONNX file that is read here"):
        check_onnx_file(tmp_path / "a.onnx")


def test_what_is_read_is_what_the_file_holds(classifier_folder: Path) -> None:
    for name in (FolderFiles.TEXT_ONNX, FolderFiles.VISION_ONNX, FolderFiles.PREPROCESS_ONNX):
        path = classifier_folder / name
        ours, theirs = check_onnx_file(path), onnx.load(path).graph
        assert [n.op for n in ours.nodes] == [n.op_type for n in theirs.node]
        assert [n.inputs for n in ours.nodes] == [list(n.input) for n in theirs.node]
        assert ours.shapes == {
            value.name: [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]
            for value in (*theirs.input, *theirs.output)
        }
        for mine, its in zip(read_onnx(path).tensors, theirs.initializer, strict=True):
            assert (mine.name, mine.dims) == (its.name, list(its.dims))
            assert mine.data is not None
            assert bytes(mine.data) == its.raw_data


@pytest.fixture
def folder(classifier_folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(classifier_folder, tmp_path / "model"))


def test_the_service_refuses_a_loop_at_once(folder: Path, tmp_path: Path) -> None:
    true = helper.make_tensor("true", TensorProto.BOOL, [], [True])
    path = graph_file(tmp_path / "a.onnx", loop(), [true])
    put(folder, FolderFiles.VISION_ONNX, path.read_bytes())
    with pytest.raises(ArtifactError, match=r"vision_model\.onnx: operator 'Loop'"):
        load_model(Settings(model=folder))


def test_memory_is_bounded_where_it_is_run_first(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    info = put(folder, FolderFiles.VISION_ONNX, grown(folder))
    limits = Limits(120, 2 << 30)  # a batch of 16 takes 4 GiB
    monkeypatch.setattr(trial, "limits_of", lambda info: limits)
    with pytest.raises(ArtifactError, match=r"allowed: 120 s of a CPU|cannot run it"):
        try_model(folder, info, "fp32", remember=False)


def test_time_is_bounded_where_it_is_run_first(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    info = put(folder, FolderFiles.VISION_ONNX, slow(folder))
    monkeypatch.setattr(trial, "limits_of", lambda info: Limits(3, 6 << 30))
    with pytest.raises(ArtifactError, match=r"took too long.*allowed: . s of a CPU"):
        try_model(folder, info, "fp32", remember=False)


def test_what_came_through_is_not_run_again(
    folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    info = read_model_info(folder)
    try_model(folder, info, "fp32", batch=2)

    def ran(*_: object, **__: object) -> None:
        raise AssertionError("it was run again")

    monkeypatch.setattr("subprocess.run", ran)
    try_model(folder, info, "fp32", batch=2)
    with pytest.raises(AssertionError, match="run again"):  # another batch, or another model
        try_model(folder, info, "fp32", batch=3)
    changed = replace(info, logit_scale=info.logit_scale * 2)
    with pytest.raises(AssertionError, match="run again"):
        try_model(folder, changed, "fp32", batch=2)


def test_the_bounds_are_those_of_the_process_alone(folder: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_AS)
    try_model(folder, read_model_info(folder), "fp32", batch=1, remember=False)
    assert resource.getrlimit(resource.RLIMIT_AS) == before


def test_a_tower_of_another_shape_is_an_error_of_ours(folder: Path, tmp_path: Path) -> None:
    path = graph_file(tmp_path / "a.onnx", [node("Identity", ["x"], ["out"])])
    info = put(folder, FolderFiles.VISION_ONNX, path.read_bytes())
    with pytest.raises(ArtifactError, match=r"vision_model\.onnx: onnxruntime cannot run it"):
        try_model(folder, info, "fp32", remember=False)


def test_sizes_of_pictures_are_said_once(folder: Path) -> None:
    info = read_model_info(folder)
    config = {**info.preprocess, "size": 2 * info.image_size[0]}
    values = json.loads((folder / FolderFiles.INFO).read_text())
    write_model_info(folder, replace(info, preprocess=config))
    assert json.loads((folder / FolderFiles.INFO).read_text()) != values
    with pytest.raises(ArtifactError, match=r"preprocess\.size: .*allowed: image_size"):
        load_model(Settings(model=folder))
