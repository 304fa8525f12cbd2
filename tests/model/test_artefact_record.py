"""What ptft.json, model.json and the headers of weights may say, and what is not opened."""

import dataclasses
import json
import shutil
import struct
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from ptft.artifact import (
    FolderFiles,
    RunFiles,
    hash_files,
    read_json,
    read_model_info,
    write_json,
    write_model_info,
)
from ptft.errors import ArtifactError, DigestError, ModelError
from ptft.files.arrays import check_header, read_arrays
from ptft.files.bounds import check_names
from ptft.files.digests import HeldFiles
from ptft.files.tensors import TensorFiles
from ptft.model import load_model, save_model
from ptft.model.spec import load_spec
from ptft.model.store import hold
from ptft.model_record import MixParent, MixRecord
from ptft.onnx.golden import read_golden
from serving.model import verify_model
from serving.settings import Settings
from tests.support import tiny


@pytest.fixture
def folder(classifier_folder: Path, tmp_path: Path) -> Path:
    """A copy of a model folder, to be changed."""
    return Path(shutil.copytree(classifier_folder, tmp_path / "model"))


def say(folder: Path, **values: Any) -> None:
    """Change ``ptft.json`` as a stranger would who wrote it."""
    path = folder / FolderFiles.INFO
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"logit_scale": float("nan")}, "logit_scale: nan; allowed: a number from 0 to 1e"),
        ({"logit_scale": 1e999}, "logit_scale: inf"),
        ({"logit_bias": -1e300}, "logit_bias: -1e"),
        ({"embed_dim": 10**9}, "embed_dim: 1000000000; allowed: a whole number from 1 to 65536"),
        ({"embed_dim": True}, "embed_dim: True"),
        ({"context_length": 10**4000}, "context_length: a number of 13288 bits"),
        ({"image_size": [10**6, 1]}, "image_size: 1000000; allowed: a whole number from 1 to"),
        ({"image_size": "x"}, "image_size: 'x'; allowed: a list"),
        ({"files": []}, "files: .*allowed: a JSON object"),
        ({"files": None}, "files: None; allowed: a JSON object"),
        ({"files": {"a": None}}, "files: a: None; allowed: a JSON object"),
        ({"files": {"a": {"sha256": "0" * 64, "size": -1}}}, "size: -1"),
        ({"files": {"a": {"sha256": "0" * 64, "size": 1.5}}}, "size: 1.5"),
        ({"files": {"a": {"sha256": 7, "size": 1}}}, "sha256: 7; allowed: 64 hex"),
        ({"tokenizer": {"context_length": 10**6}}, "tokenizer: context_length: 1000000"),
        ({"tokenizer": {"context_length": 16, "_target_": "os.system"}}, "unknown key"),
        ({"classes": [1]}, r"classes\[0\]: 1"),
        ({"templates": ["\ud800"]}, "allowed: a text of whole characters"),
        ({"reads": ["image"]}, "reads: .*allowed: image, text, both"),
        ({"surprise": 1}, "surprise: unknown key"),
    ],
)
def test_a_value_out_of_bounds(folder: Path, values: dict[str, Any], said: str) -> None:
    say(folder, **values)
    with pytest.raises(ArtifactError, match=said) as caught:
        read_model_info(folder)
    assert "\n" not in str(caught.value)
    assert str(folder / FolderFiles.INFO) in str(caught.value)


@pytest.mark.parametrize(
    "name",
    [
        *("../a", "/a", "a\0b", "a\\b", "a//b", "./a", ".a", "a/", "a/../b", "c:x", "a\n", "é"),
        *("a/.b", "con.", "a ", "-rf", "x" * 300, ""),
        *("con", "a/NUL.json", "Aux/x", "com1", "lpt9.x", "a\u202eb", "\uff41", "a\u0301"),
    ],
)
def test_a_name_that_is_no_plain_file_inside(name: str) -> None:
    with pytest.raises(ArtifactError, match="no plain file name inside the folder"):
        check_names([name], "ptft.json")


def test_names_that_some_file_system_takes_for_one() -> None:
    with pytest.raises(ArtifactError, match="differ in letter case alone"):
        check_names(["onnx/A.onnx", "onnx/a.onnx"], "ptft.json")
    with pytest.raises(ArtifactError, match="'a' is a file and a folder"):
        check_names(["a", "A/b"], "ptft.json")
    check_names(["console.json", "a.con", "com10/a.json"], "ptft.json")
    check_names(["adapter/adapter.json", "onnx/text_model.onnx", "README.md"], "ptft.json")


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a": ' * 50_000, "1" * 6000, "\ufeff{}", "{"])
def test_json_that_python_cannot_take(text: str, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(ArtifactError, match=r"a\.json: not JSON") as caught:
        read_json(tmp_path / "a.json")
    assert len(str(caught.value)) < 500


def header(path: Path, tensors: dict[str, Any], data: bytes = b"") -> None:
    text = json.dumps(tensors).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


@pytest.mark.parametrize(
    "entry",
    [
        {"dtype": "F32", "shape": [2**34], "data_offsets": [0, 2**36]},  # 64 GiB
        {"dtype": "F32", "shape": [2**32, 2**32], "data_offsets": [0, 8]},
        {"dtype": "F32", "shape": [-1, -2], "data_offsets": [0, 8]},
        {"dtype": "F32", "shape": [3], "data_offsets": [0, 8]},
        {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]},
        {"dtype": "object", "shape": [1], "data_offsets": [0, 8]},
        {"dtype": ["F32"], "shape": [2], "data_offsets": [0, 8]},
        {"dtype": "F32", "shape": [1] * 40, "data_offsets": [0, 8]},
        [],
    ],
)
def test_weights_that_are_not_there(entry: Any, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    header(path, {"a": entry}, bytes(8))
    for read in (check_header, read_arrays):
        with pytest.raises(ArtifactError, match="not a safetensors file"):
            read(path)
    with pytest.raises(ArtifactError, match="not a safetensors file"):
        TensorFiles(tmp_path, "model")


def test_a_header_longer_than_its_file(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(struct.pack("<Q", 2**62) + b"{}")
    with pytest.raises(ArtifactError, match="a header of 4611686018427387904 bytes of 10"):
        check_header(path)


def test_rows_of_a_whole_that_no_ranks_could_hold(tmp_path: Path) -> None:
    rows = json.dumps({"a": [0, 2**50]})
    save_file({"a": np.zeros((2, 3), np.float32)}, tmp_path / "model.safetensors", {"rows": rows})
    with pytest.raises(ArtifactError, match="rows of a: 1125899906842624; allowed"):
        TensorFiles(tmp_path, "model")


def test_golden_embeddings_of_another_form(folder: Path) -> None:
    path = folder / FolderFiles.GOLDEN
    tensors = read_arrays(path)
    save_file({**tensors, "pixels": tensors["pixels"][..., 0]}, path, {"texts": "[]"})
    with pytest.raises(ArtifactError, match=r"pixels: uint8.*allowed: uint8 of 4 dimensions"):
        read_golden(folder)
    save_file(tensors, path, {"texts": "[" * 100_000})
    with pytest.raises(ArtifactError, match="nested too deep"):
        read_golden(folder)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"config": {"embed_dim": 10**9, "vision_cfg": {}, "text_cfg": {}}}, "embed_dim: 10000000"),
        ({"timm_input_size": [10**9, 1]}, "timm_input_size: 1000000000"),
        ({"preprocess": {"size": 32, "std": [0, 1, 1]}}, "std: 0; allowed"),
        ({"preprocess": {"size": 10**9}}, "size: 1000000000; allowed"),
        ({"preprocess": {"mean": [float("nan")] * 3}}, "mean: nan"),
        ({"preprocess": []}, "preprocess: .*allowed: a JSON object"),
        ({"classes": 5}, "classes: 5"),
        ({"adapter": {"section": 1, "base": "x"}}, "adapter.section: 1"),
        ({"image_args": {"checkpoint_path": "/etc/x.pth"}}, "checkpoint_path: it reads or fetches"),
        ({"image_args": {"pretrained": True}}, "pretrained: it reads or fetches"),
    ],
)
def test_a_specification_out_of_bounds(change: dict[str, Any], said: str, tmp_path: Path) -> None:
    save_model(tiny.build(tiny.arch_section()), tmp_path)
    path = tmp_path / "model.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(ModelError, match=said):
        load_model(tmp_path)


@pytest.mark.parametrize(
    ("part", "values"),
    [
        ("text_cfg", {"layers": 1000, "width": 4096, "heads": 8}),
        ("text_cfg", {"layers": 10**9}),
        ("text_cfg", {"context_length": 65_536}),
        ("vision_cfg", {"layers": 1000, "width": 8192}),
        ("vision_cfg", {"timm_model_name": "hf-hub:somebody/else"}),
        ("vision_cfg", {"timm_model_name": "local-dir:/etc"}),
        ("vision_cfg", {"patch_size": 1, "image_size": 16_384}),
    ],
)
def test_an_architecture_larger_than_its_weights(
    part: str, values: dict[str, Any], tmp_path: Path
) -> None:
    """Refused before it is built: building it would take the machine's memory."""
    save_model(tiny.build(tiny.arch_section()), tmp_path)
    path = tmp_path / "model.json"
    spec = json.loads(path.read_text())
    spec["config"][part].update(values)
    path.write_text(json.dumps(spec))
    began = time.monotonic()
    with pytest.raises(ModelError, match=r"parameters are declared|allowed: a"):
        load_model(tmp_path)
    assert time.monotonic() - began < 10


def unrecord(folder: Path, name: str) -> None:
    """Leave a file out of ``ptft.json``, whose digest is then right without it."""
    from dataclasses import replace

    info = read_model_info(folder)
    write_model_info(
        folder, replace(info, files={n: e for n, e in info.files.items() if n != name})
    )


@pytest.mark.parametrize("name", [FolderFiles.TOKENIZER, FolderFiles.GOLDEN])
def test_the_service_opens_nothing_unrecorded(folder: Path, name: str) -> None:
    unrecord(folder, name)
    with pytest.raises(ArtifactError, match=f"{name}: ptft.json does not record it"):
        verify_model(Settings(model=folder))


def test_a_head_that_is_not_recorded_is_none(folder: Path) -> None:
    from ptft.onnx.model import OnnxModel

    unrecord(folder, FolderFiles.HEAD)
    with pytest.raises(ArtifactError, match=r"head\.safetensors: not recorded"):
        OnnxModel(folder, read_model_info(folder), "fp32", 1)


@pytest.mark.parametrize("name", [FolderFiles.TOKENIZER, FolderFiles.HEAD, "hf_text/config.json"])
def test_a_model_is_not_loaded_from_what_is_not_recorded(folder: Path, name: str) -> None:
    (folder / name).parent.mkdir(exist_ok=True)
    if not (folder / name).exists():
        (folder / name).write_text("{}")
    unrecord(folder, name)
    with pytest.raises(DigestError, match=r"does not record it.*not opened"):
        load_model(folder)


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_a_changed_weight_is_not_loaded(folder: Path) -> None:
    _flip(folder / FolderFiles.OPEN_CLIP_WEIGHTS)
    with pytest.raises(DigestError, match=r"open_clip_model\.safetensors: sha256"):
        load_model(folder)
    load_model(folder, verify=False)


def test_a_weight_that_is_swapped_after_the_check_is_not_loaded(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def hold_and_swap(place: Path) -> HeldFiles:
        held = hold(place)
        _flip(place / FolderFiles.OPEN_CLIP_WEIGHTS)
        return held

    monkeypatch.setattr("ptft.model.source.hold", hold_and_swap)
    with pytest.raises(DigestError, match="changed between the check of its bytes and their use"):
        load_model(folder)


def test_a_mix_holds_its_weights(tmp_path: Path) -> None:
    save_model(tiny.build(tiny.arch_section()), tmp_path)
    digest = hash_files(tmp_path)["model.safetensors"]["sha256"]
    mix = MixRecord("m", digest, [MixParent("a", share=1.0, weights_digest=digest)])
    write_json(tmp_path / RunFiles.MIX, dataclasses.asdict(mix))
    told: list[str] = []
    load_model(tmp_path, tell=told.append)
    assert [line.partition(": ")[2][:36] for line in told] == [
        "mix.json records the weights alone; "
    ]
    _flip(tmp_path / "model.safetensors")
    with pytest.raises(DigestError, match=r"model\.safetensors: sha256 .*; mix\.json records"):
        load_model(tmp_path)


def test_a_checkpoint_holds_its_files(tmp_path: Path) -> None:
    save_model(tiny.build(tiny.arch_section()), tmp_path)
    state = {"format": 2, "files": hash_files(tmp_path)}
    (tmp_path / "state.json").write_text(json.dumps(state))
    load_model(tmp_path)
    spec = json.loads((tmp_path / "model.json").read_text())
    (tmp_path / "model.json").write_text(json.dumps(spec))
    with pytest.raises(DigestError, match=r"model\.json: .*state\.json records"):
        load_model(tmp_path)


def test_a_specification_that_is_no_object(tmp_path: Path) -> None:
    (tmp_path / "model.json").write_text('{"format": [[[1]]]}')
    with pytest.raises(ModelError, match="format a list of 1; this ptft reads 1"):
        load_spec(tmp_path)
