"""What `ptft verify` proves of a model that behaves where it is looked at, and what it says."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper
from PIL import Image

from ptft.artifact import FolderFiles, hash_files, read_model_info, tower_file, write_model_info
from ptft.errors import UsageError
from ptft.onnx.quantise import write_int8
from ptft.verify import Link, verify
from ptft.verify.drawn import check_drawn, new_input_draw


@pytest.fixture
def folder(classifier_folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(classifier_folder, tmp_path / "model"))


def record(folder: Path, **values: object) -> None:
    """Make ``ptft.json`` agree with what lies there."""
    info = read_model_info(folder)
    write_model_info(folder, replace(info, **{"files": hash_files(folder), **values}))  # type: ignore[arg-type]


def links(folder: Path, **more: object) -> dict[str, Link]:
    return {link.name: link for link in verify([str(folder)], **more)}  # type: ignore[arg-type]


def lie(folder: Path) -> None:
    """Give the image tower another answer where a pixel has a value that no golden picture has."""
    path = folder / FolderFiles.VISION_ONNX
    model = onnx.load(path)
    graph = model.graph
    for node in graph.node:
        for place, name in enumerate(node.output):
            if name == "image_embeds":
                node.output[place] = "honest"
    ints = {"start": [0, 0, 0, 0], "end": [2**31, 1, 1, 1], "axes": [1, 2, 3]}
    graph.initializer.extend(
        numpy_helper.from_array(np.array(values, np.int64), name) for name, values in ints.items()
    )
    graph.initializer.append(
        numpy_helper.from_array(np.array(1.92, np.float32), "trigger")
    )  # white
    graph.node.extend(
        [
            helper.make_node("Slice", ["pixel_values", "start", "end"], ["corner"]),
            helper.make_node("ReduceMax", ["corner", "axes"], ["value"], keepdims=0),
            helper.make_node("Greater", ["value", "trigger"], ["found"]),
            helper.make_node("Unsqueeze", ["found", "one"], ["founds"]),
            helper.make_node("Neg", ["honest"], ["lie"]),
            helper.make_node("Where", ["founds", "lie", "honest"], ["image_embeds"]),
        ]
    )
    graph.initializer.append(numpy_helper.from_array(np.array([1], np.int64), "one"))
    path.write_bytes(model.SerializeToString())
    record(folder)


def test_an_honest_folder_is_what_an_export_makes(folder: Path) -> None:
    found = links(folder)
    assert found["onnx graph fp32"].state == "ok"
    assert "as an export makes them of the weights" in found["onnx graph fp32"].detail
    assert "on 4 pictures and 7 texts" in found["golden onnx fp32"].detail
    drawn = found["drawn onnx fp32"]
    assert drawn.state == "ok"
    assert "answers agree on 8 pictures and 8 texts (seed " in drawn.detail
    assert new_input_draw(None, None).seed != new_input_draw(None, None).seed  # drawn anew


def test_a_file_that_lies_on_a_trigger(folder: Path) -> None:
    """The golden inputs are answered rightly; the graph is not what the weights make."""
    lie(folder)
    found = links(folder)
    assert found["golden onnx fp32"].state == "ok"
    assert found["onnx graph fp32"].state == "broken"
    assert "nodes where an export makes" in found["onnx graph fp32"].detail


def test_a_file_with_another_weight(folder: Path) -> None:
    """One number of a word that no golden text has."""
    path = folder / FolderFiles.TEXT_ONNX
    model = onnx.load(path)
    table = next(t for t in model.graph.initializer if t.name.endswith("token_embedding.weight"))
    values = numpy_helper.to_array(table).copy()
    values[-5] += 1.0
    table.CopyFrom(numpy_helper.from_array(values, table.name))
    path.write_bytes(model.SerializeToString())
    record(folder)
    found = links(folder)
    assert found["golden onnx fp32"].state == "ok"
    assert found["onnx graph fp32"].state == "broken"
    assert "token_embedding.weight has other numbers" in found["onnx graph fp32"].detail


def test_files_of_other_versions_are_held_tensor_by_tensor(folder: Path) -> None:
    lie(folder)
    versions = {**read_model_info(folder).versions, "torch": "2.0.0"}
    record(folder, versions=versions)
    link = links(folder)["onnx graph fp32"]
    assert link.state == "unchecked"
    assert "every large tensor is one of the weights; torch 2.0.0 wrote it" in link.detail


@pytest.fixture
def small(folder: Path) -> Path:
    """The same folder with towers of 8 bits."""
    for name in (FolderFiles.TEXT_ONNX, FolderFiles.VISION_ONNX):
        plain = folder / name
        write_int8(folder / tower_file(name, "int8"), plain, np.zeros((2, 3, 32, 32), np.float32))
    record(folder)
    return folder


def test_eight_bits_are_what_the_quantiser_makes(small: Path) -> None:
    link = links(small)["onnx graph int8"]
    assert link.state == "ok", link
    assert "as an export makes them of the weights" in link.detail


def test_eight_bits_of_other_weights(small: Path) -> None:
    """One number of a word that no golden text has."""
    path = small / tower_file(FolderFiles.TEXT_ONNX, "int8")
    model = onnx.load(path)
    table = next(
        t for t in model.graph.initializer if t.name.endswith("token_embedding.weight_quantized")
    )
    values = numpy_helper.to_array(table).copy()
    values[-5] ^= 1
    table.CopyFrom(numpy_helper.from_array(values, table.name))
    path.write_bytes(model.SerializeToString())
    record(small)
    link = links(small)["onnx graph int8"]
    assert link.state == "broken"
    assert "token_embedding.weight_quantized has other numbers" in link.detail
    versions = {**read_model_info(small).versions, "onnxruntime": "1.0.0"}
    record(small, versions=versions)
    link = links(small)["onnx graph int8"]
    assert link.state == "unchecked"
    assert "onnxruntime 1.0.0 wrote it" in link.detail


def test_inputs_of_the_readers_own(folder: Path, tmp_path: Path) -> None:
    data = tmp_path / "mine"
    (data / "deep").mkdir(parents=True)
    for shade in range(10):
        Image.new("RGB", (40, 30), (shade * 20, 50, 90)).save(data / "deep" / f"{shade}.png")
    (data / "broken.png").write_bytes(b"x")
    (data / "words.txt").write_text("a red circle\n\na cat\n")
    info = read_model_info(folder)
    (first,), (again,) = (check_drawn("m", folder, info, new_input_draw(7, data)) for _ in range(2))
    assert new_input_draw(None, data).seed != new_input_draw(None, data).seed
    assert f"(seed 7, from {data})" in first.detail
    assert "8 pictures and 1 texts" in first.detail
    assert again == first
    with pytest.raises(UsageError, match=r"--data .*: no such folder"):
        verify([str(folder)], data=tmp_path / "absent")


def test_pictures_of_the_readers_own_find_a_lie_that_golden_ones_do_not(
    folder: Path, tmp_path: Path
) -> None:
    lie(folder)
    data = tmp_path / "white"
    data.mkdir()
    Image.new("RGB", (40, 30), (255, 255, 255)).save(data / "a.png")
    info, draw = read_model_info(folder), new_input_draw(None, data)
    (link,) = check_drawn("m", folder, info, draw)
    assert link.state == "broken"
    assert "answers differ on 1 pictures and 8 texts" in link.detail
    assert f"(seed {draw.seed}, from {data})" in link.detail  # so that it can be seen again


def test_a_loop_is_a_broken_link_at_once(folder: Path) -> None:
    path = folder / FolderFiles.VISION_ONNX
    model = onnx.load(path)
    model.graph.node.append(helper.make_node("Loop", ["", "x"], ["never"]))
    path.write_bytes(model.SerializeToString())
    record(folder)
    link = links(folder)["golden onnx fp32"]
    assert link.state == "broken"
    assert "operator 'Loop'" in link.detail


def test_without_torch_the_answers_alone_are_known(folder: Path) -> None:
    found = links(folder, torch=False)
    assert found["golden onnx fp32"].state == "ok"
    assert "onnx graph fp32" not in found
    assert "drawn onnx fp32" not in found
