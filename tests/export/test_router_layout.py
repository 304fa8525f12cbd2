"""sentence-transformers' modules in a model folder, held to the model. The library itself loads
them in ``test_clients``."""

from dataclasses import replace
from pathlib import Path

import pytest

from ptft.artifact import FolderFiles, read_json
from ptft.export import library_files
from ptft.export.library_files import Library, write_library_files
from ptft.export.model_files import write_model_files
from ptft.export.parity import make_golden
from ptft.export.router_layout import RouterLayout, router_layout
from ptft.model import DualEncoder
from ptft.model.adapt import attach
from ptft.recipe import PrefixAdapt, SiglipObjective
from tests.support import tiny


def build(folder: Path, kind: str = "bert", **values: object) -> DualEncoder:
    """A timm image tower and a transformers text tower of a folder named by its place."""
    text = tiny.hf_text_folder(folder / "model", kind)
    return tiny.build(tiny.hf_section(text, image="test_vit", image_size=160, **values))


def write(model: DualEncoder, folder: Path) -> dict[str, Library]:
    folder.mkdir()
    write_model_files(model, folder)
    return write_library_files(model, make_golden(model), folder)


@pytest.mark.parametrize(
    ("kind", "values", "chain"),
    [
        ("bert", {}, ["Transformer", "Pooling", "Dense"]),
        ("roberta", {"text_projection": "mlp"}, ["Transformer", "Pooling", "Dense", "Dense"]),
        (
            "bert",
            {
                "text_pool": "cls_last_hidden_state_pooler",
                "text_projection": "none",
                "embed_dim": 32,
            },
            ["Transformer", "Pooling"],
        ),
    ],
)
def test_towers_that_transformers_joins_in_no_class(
    kind: str, values: dict[str, object], chain: list[str], tmp_path: Path
) -> None:
    found = write(build(tmp_path, kind, **values), tmp_path / "out")
    assert "pools open_clip's way" in str(found["transformers"].reason)
    assert found["sentence-transformers"].loads == "Router"
    assert found["sentence-transformers"].max_abs is not None
    assert found["sentence-transformers"].max_abs <= 1e-5
    (module,) = read_json(tmp_path / "out" / "modules.json")
    router = tmp_path / "out" / module["path"]
    config = read_json(router / "router_config.json")
    assert [name.rpartition("_")[2] for name in config["structure"]["text"]] == chain
    assert all((router / name / "config.json").is_file() for name in config["types"])
    assert not any(kind.startswith("ptft") for kind in config["types"].values())
    tokenizer = router / "text_0_Transformer" / FolderFiles.TOKENIZER
    assert tokenizer.read_bytes() == (tmp_path / "out" / FolderFiles.TOKENIZER).read_bytes()


def test_a_bias_of_logits_is_no_hindrance(tmp_path: Path) -> None:
    """SigLIP's objective: embeddings do not have it, and a router has nothing else."""
    text = tiny.hf_text_folder(tmp_path / "model")
    model = tiny.build(tiny.hf_section(text), SiglipObjective())
    found = write(model, tmp_path / "out")
    assert found["sentence-transformers"].loads == "Router"


def other(kind: str, folder: Path) -> DualEncoder:
    match kind:
        case "prefix":
            model = build(folder)
            attach(model, PrefixAdapt(), seed=0)
            return model.eval()
        case "native":
            return tiny.build(tiny.towers_section(image_projection="mlp"))
        case "mlp":
            return build(folder, image_projection="mlp")
        case _:
            return tiny.build(tiny.arch_section("tiny-vit"))


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("prefix", "no place for an adapter"),
        ("native", "open_clip's own text tower"),
        ("mlp", "projection is more than a matrix"),
    ],
)
def test_what_modules_do_not_compute_is_said(kind: str, reason: str, tmp_path: Path) -> None:
    found = write(other(kind, tmp_path), tmp_path / "out")["sentence-transformers"]
    assert found.loads is None
    assert reason in str(found.reason)
    assert not (tmp_path / "out" / "modules.json").exists()


def test_where_transformers_loads_it_there_are_no_modules(tmp_path: Path) -> None:
    found = write(other("clip", tmp_path), tmp_path / "out")
    assert found["sentence-transformers"].loads == found["transformers"].loads == "CLIPModel"
    assert not (tmp_path / "out" / "modules.json").exists()


@pytest.mark.parametrize("spoil", ["pooling", "weight", "config"])
def test_modules_that_are_not_exact_are_left_out(
    spoil: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = build(tmp_path)
    right = router_layout(model)
    assert isinstance(right, RouterLayout)
    if spoil == "pooling":
        wrong = replace(right, pooling="cls")
    elif spoil == "weight":
        wrong = replace(right, layers=[(x.flip(0), name) for x, name in right.layers])
    else:
        text = replace(right.text, config={**right.text.config, "hidden_size": 64})
        wrong = replace(right, text=text)
    monkeypatch.setattr(library_files, "router_layout", lambda model: wrong)
    found = write(model, tmp_path / "out")["sentence-transformers"]
    assert found.loads is None
    assert ("other embeddings" in str(found.reason)) is (spoil != "config")
    assert not (tmp_path / "out" / "modules.json").exists()
    assert not (tmp_path / "out" / "sentence-transformers").exists()
