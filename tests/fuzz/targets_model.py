"""Readers of models: ptft.json, model.json, configurations, tokenizer, weights, ONNX, state."""

import json
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from safetensors.numpy import save

from ptft.artifact import FolderFiles, ModelInfo, hash_files, read_model_info, write_model_info
from ptft.checkpoint.folder import read_state
from ptft.compat import import_open_clip
from ptft.files.arrays import read_arrays
from ptft.files.tensors import TensorFiles
from ptft.model.foreign import check_architecture, check_folder_configs, read_safetensors
from ptft.model.spec import load_spec
from ptft.model.store import hold
from ptft.model_record import read_mix
from ptft.onnx.check import check_onnx_file
from ptft.onnx.golden import read_golden
from ptft.preprocess import ImagePreprocess, TextTokenizer
from ptft.sketch import Sketches, make_confidence, make_sketch
from tests.fuzz.draw import bytes_near, values_near
from tests.fuzz.harness import Files, Target

__all__ = ["TARGETS", "record_folder"]

_WORDS = {"[UNK]": 0, "a": 1, "##a": 2, "photo": 3, "[SEP]": 4}
_TOKENIZER: dict[str, Any] = {
    "version": "1.0",
    "truncation": None,
    "padding": None,
    "added_tokens": [{"id": 4, "content": "[SEP]", "special": True, "single_word": False,
                      "lstrip": False, "rstrip": False, "normalized": False}],
    "normalizer": {"type": "Sequence", "normalizers": [
        {"type": "Replace", "pattern": {"Regex": "\\s+"}, "content": " "}, {"type": "Lowercase"},
        {"type": "Replace", "pattern": {"String": "b"}, "content": "bb"}]},
    "pre_tokenizer": {"type": "Split", "pattern": {"Regex": " ?\\p{L}+|\\s+"},
                      "behavior": "Isolated", "invert": False},
    "post_processor": {"type": "BertProcessing", "sep": ["[SEP]", 4], "cls": ["a", 1]},
    "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": True},
    "model": {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
              "max_input_chars_per_word": 100, "vocab": _WORDS},
}  # fmt: skip
_CONFIG: dict[str, Any] = {
    "embed_dim": 8,
    "vision_cfg": {"image_size": 32, "layers": 1, "width": 16, "patch_size": 16},
    "text_cfg": {"context_length": 8, "vocab_size": 9, "width": 8, "heads": 2, "layers": 1},
}
_SPEC: dict[str, Any] = {
    "format": 1,
    "name": "a",
    "config": _CONFIG,
    "preprocess": {"size": 32, "mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]},
    "tokenizer": {"context_length": 8, "kind": "hf", "clean": "none", "pad_id": 0},
    "tokenizer_config": {"tokenizer_class": "PreTrainedTokenizerFast"},
    "image_args": {},
    "timm_input_size": None,
    "open_clip_reason": None,
    "open_clip_needs": None,
    "base": None,
    "classes": ["a"],
    "templates": ["a {}"],
    "reads": "image",
    "adapter": None,
}
_HF = {"model_type": "bert", "hidden_size": 32, "num_hidden_layers": 2, "architectures": ["B"]}
_MIX = {
    "name": "m",
    "weights_digest": "0" * 64,
    "parents": [{"name": "a", "share": 0.5, "weights_digest": "0" * 64, "licence": "mit"}],
    "format": 1,
}
_RUNS = ("auto_map", "quantization_config", "trust_remote_code", "checkpoint_path", "_target_")


def _json(name: str, *seeds: Any, keys: tuple[str, ...] = ()) -> st.SearchStrategy[Files]:
    """A file of JSON: values near, or bytes near."""
    plain = [json.dumps(seed).encode() for seed in seeds]
    near = values_near(seeds, keys).map(lambda values: json.dumps(values).encode())
    return st.one_of(near, bytes_near(plain)).map(lambda data: {name: data})


# the record


def record_folder(folder: Path) -> None:
    """Make a model folder whose record is whole, and which holds nothing else of use."""
    (folder / "a.json").write_bytes(b"{}")
    info = ModelInfo(
        name="a", task="embed", embed_dim=8, context_length=8, image_size=(32, 32),
        logit_scale=10.0, logit_bias=0.0, recipe_digest="", weights_digest="",
        tokenizer=dict(_SPEC["tokenizer"]), preprocess=dict(_SPEC["preprocess"]),
        files=hash_files(folder), clients={"timm": {"loads": "x"}}, versions={"ptft": "1"},
    )  # fmt: skip
    write_model_info(folder, info)


@cache
def _record() -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        record_folder(folder)
        return dict(json.loads((folder / FolderFiles.INFO).read_bytes()))


def _read_record(folder: Path) -> None:
    info = read_model_info(folder)
    ImagePreprocess.from_config(info.preprocess)


# model.json, and open_clip's configuration


def _spec_files() -> st.SearchStrategy[Files]:
    import_open_clip()  # importing it makes folders, which no reading may
    tokenizer = json.dumps(_TOKENIZER).encode()
    return _json("model.json", _SPEC, keys=_RUNS).map(
        lambda files: {**files, FolderFiles.TOKENIZER: tokenizer}
    )


def _read_spec(folder: Path) -> None:
    spec = load_spec(folder)
    check_architecture(spec.config, spec.image_args, "model.json", weights=10**6)


# the tokenizer


def _read_tokenizer(folder: Path) -> None:
    tokenizer = TextTokenizer(
        folder / FolderFiles.TOKENIZER, context_length=8, kind="hf", clean="none"
    )
    tokens = tokenizer(["a photo", "b" * 2000, " " * 2000, "a " * 1000, "é\u0301😀"])
    tokenizer.decode(tokens)


# weights


def _weights_files() -> st.SearchStrategy[Files]:
    plain = save({"a": np.zeros((2, 3), np.float32), "b": np.zeros(4, np.int64)}, {"rows": "{}"})
    rows = save({"a": np.zeros((2, 3), np.float32)}, {"rows": '{"a": [0, 2]}'})
    words = (b'"F8_E4M3"', b"[9223372036854775807]", b'"data_offsets":[0,68719476736]', b"\0" * 8)
    near = bytes_near([plain, rows], words)
    return near.map(lambda data: {"model.safetensors": data})


def _read_weights(folder: Path) -> None:
    path = folder / "model.safetensors"
    for read in (read_arrays, read_safetensors):
        read(path)
    with TensorFiles(folder, "model") as files:
        for name in files.names():
            files.read(name)


def _golden_files() -> st.SearchStrategy[Files]:
    tensors = {
        "pixels": np.zeros((1, 4, 4, 3), np.uint8),
        "tokens": np.zeros((1, 8), np.int64),
        "image_embeds": np.ones((1, 8), np.float32),
        "text_embeds": np.ones((1, 8), np.float32),
    }
    near = bytes_near([save(tensors, {"texts": '["a"]'})], (b'"I64"', b"[[[[", b"\\ud800"))
    return near.map(lambda data: {FolderFiles.GOLDEN: data})


@cache
def _sketch() -> bytes:
    rows = np.random.default_rng(0).standard_normal((120, 8))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    chances = np.full((60, 2), 0.5)
    sketches = Sketches(
        image=make_sketch(rows[:60], rows[60:]), confidence=make_confidence(chances, chances)
    )
    return save(sketches.tensors())


def _sketch_files() -> st.SearchStrategy[Files]:
    near = bytes_near([_sketch()], (b'"I64"', b"[0,0]", b"image.band", b"\xff" * 4))
    return near.map(lambda data: {FolderFiles.SKETCH: data})


def _read_sketch(folder: Path) -> None:
    found = Sketches.read(folder / FolderFiles.SKETCH, 8, 2)
    if found.image is not None:
        found.image.featured(np.ones((2, 8), np.float32))
        found.image.bounds(1000)


# ONNX


@cache
def _onnx() -> bytes:
    weight = numpy_helper.from_array(np.ones((4, 2), np.float32), "w")
    shape = numpy_helper.from_array(np.array([-1, 2], np.int64), "s")
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["y"]),
        helper.make_node("Reshape", ["y", "s"], ["z"]),
        helper.make_node("Transpose", ["z"], ["out"], perm=[0, 1]),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["b", 4])],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, ["b", 2])],
        [weight, shape],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])
    return bytes(onnx.ModelProto.SerializeToString(model))


def _onnx_files() -> st.SearchStrategy[Files]:
    words = (
        b"\x22\x04Loop",
        b"Loop",
        b"\x2a\x05\x32\x03\x0a\x01\x00",
        b"\x6a\x04\x0a\x02ab",
        b"If",
    )
    return bytes_near([_onnx()], words).map(lambda data: {"a.onnx": data})


# a checkpoint


def _checkpoint_files() -> st.SearchStrategy[Files]:
    state = {
        "format": 2,
        "progress": {"step": 1, "seen": 8},
        "optimizer": {"groups": [{"lr": 0.1, "names": ["a"]}], "kind": "AdamW"},
        "files": {"model.safetensors": {"sha256": "0" * 64, "size": 3}},
    }
    return _json("state.json", state).map(lambda files: {**files, "model.safetensors": b"abc"})


def _read_checkpoint(folder: Path) -> None:
    read_state(folder)
    hold(folder)


TARGETS: dict[str, Target] = {
    "ptft.json": Target(
        st.deferred(lambda: _json(FolderFiles.INFO, _record(), keys=("digest", "x"))), _read_record
    ),
    "model.json": Target(st.deferred(_spec_files), _read_spec),
    "mix.json": Target(_json("mix.json", _MIX), lambda folder: read_mix(folder)),
    "config.json": Target(
        _json("config.json", _HF, keys=_RUNS), lambda folder: check_folder_configs(folder)
    ),
    "tokenizer.json": Target(_json(FolderFiles.TOKENIZER, _TOKENIZER), _read_tokenizer),
    "safetensors": Target(_weights_files(), _read_weights),
    "sketch": Target(_sketch_files(), _read_sketch),
    "golden": Target(_golden_files(), lambda folder: read_golden(folder)),
    "onnx": Target(st.deferred(_onnx_files), lambda folder: check_onnx_file(folder / "a.onnx")),
    "checkpoint": Target(_checkpoint_files(), _read_checkpoint),
}
