"""What was trained is what is served, or a line says which link of the way is broken."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from ptft.artifact import (
    FolderFiles,
    RunFiles,
    file_sha256,
    hash_files,
    read_model_info,
    write_model_info,
)
from ptft.errors import DigestError, UsageError
from ptft.export import export_model
from ptft.hub import pull_model, push_model
from ptft.model import save_model
from ptft.onnx.golden import read_golden
from ptft.preprocess import ImagePreprocess
from ptft.recipe.load import parse_recipe
from ptft.report.charts import plot_curves
from ptft.runs.folder import RunStatus, start_run, write_run
from ptft.verify import Link, verify
from serving import embed
from serving.settings import Settings
from tests.serving.checkpoint import make_model
from tests.support.hub_parts import REPO_ID, TOKEN, run
from tests.support.loopback_hub import LoopbackHub
from tests.support.served import served

# huggingface_hub sends LFS files to its own HTTP client in a deprecated way
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")

RECIPE = {
    "name": "tiny-run",
    "model": {"name": "ViT-B-32"},
    "data": {"kind": "scenes"},
    "optim": {"samples_seen": 64, "global_batch": 8, "precision": "fp32"},
}
Start = Callable[[Path], AbstractContextManager[str]]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run, as training leaves it."""
    folder = tmp_path_factory.mktemp("verify") / "run"
    record = start_run(folder, parse_recipe(RECIPE, where="test"), device="cpu", total=64)
    save_model(make_model(), folder / RunFiles.FINAL)
    figures = [{"step": n, "seen": n * 8, "loss": 2.0 / n} for n in range(1, 5)]
    (folder / RunFiles.LOG).write_text("".join(json.dumps(line) + "\n" for line in figures))
    assert plot_curves(folder)
    record.status = RunStatus.FINISHED
    record.files = hash_files(folder / RunFiles.FINAL)
    record.weights_digest = record.files["model.safetensors"]["sha256"]
    write_run(folder, record)
    return folder


@pytest.fixture(scope="module")
def exported(trained: Path) -> Path:
    """The run's model folder."""
    export_model(trained, trained.with_name("model"), licence="apache-2.0", precisions=())
    return trained.with_name("model")


@pytest.fixture
def model(exported: Path, tmp_path: Path) -> Path:
    """A copy to be damaged."""
    return shutil.copytree(exported, tmp_path / "model")


@pytest.fixture
def service() -> Start:
    """The service on a folder, at an address."""

    @contextmanager
    def start(folder: Path) -> Iterator[str]:
        with served(Settings(model=folder, max_batch=2)) as url:
            yield url

    return start


def states(links: list[Link]) -> dict[str, str]:
    return {link.name: link.state for link in links}


def broken(links: list[Link]) -> dict[str, str]:
    return {link.name: link.detail for link in links if link.state == "broken"}


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def record(folder: Path, **values: object) -> None:
    """Make ``ptft.json`` agree with what lies there, as somebody would who covers his traces."""
    info = read_model_info(folder)
    write_model_info(folder, replace(info, **{"files": hash_files(folder), **values}))  # type: ignore[arg-type]


def test_every_link_holds(trained: Path, exported: Path, service: Start) -> None:
    with service(exported) as url:
        links = verify([str(trained), str(exported), url])
    found = {(link.name, link.target): link.state for link in links}
    assert set(found.values()) == {"ok"}, links
    run, folder = str(trained), str(exported)
    assert list(found) == [
        *((name, run) for name in ("recipe", "run", "run files")),
        *((name, folder) for name in ("files", "recipe", "run", "weights")),
        *((name, folder) for name in ("golden onnx fp32", "golden torch")),
        *((name, folder) for name in ("onnx graph fp32", "drawn onnx fp32")),
        *((name, url) for name in ("service", "golden service fp32")),
    ]
    assert (exported / FolderFiles.CURVES).read_bytes() == (trained / RunFiles.CURVES).read_bytes()
    assert f"]({FolderFiles.CURVES})" in (exported / FolderFiles.CARD).read_text()


def test_a_golden_picture_that_is_posted_is_the_one_that_was_embedded(exported: Path) -> None:
    from PIL import Image

    golden = read_golden(exported)
    preprocess = ImagePreprocess.from_config(read_model_info(exported).preprocess)
    for pixels in golden.pixels:
        assert np.array_equal(preprocess(Image.fromarray(pixels)), preprocess.normalise(pixels))


def test_a_flipped_byte_of_any_file_is_named_and_refused(
    hub: LoopbackHub, exported: Path, tmp_path: Path
) -> None:
    push_model(exported, REPO_ID, tag="v1", endpoint=hub.url, token=TOKEN)
    place, cache = tmp_path / "pulled", tmp_path / "cache"

    def pull(dest: Path | None) -> Path:
        return pull_model(f"{REPO_ID}@v1", dest, endpoint=hub.url, cache_dir=cache)

    pull(place)
    assert states(verify([str(place)], torch=False))["files"] == "ok"
    names = sorted(p.relative_to(place).as_posix() for p in place.rglob("*") if p.is_file())
    unhashed = {FolderFiles.CARD, FolderFiles.INFO, FolderFiles.PULLED}
    assert set(names) == {*read_model_info(exported).files, *unhashed}
    for name in names:
        flip(place / name)
        found = [link for link in verify([str(place)], torch=False) if link.state == "broken"]
        assert any(name in link.detail for link in found), (name, found)
        assert states(found)["files"] == "broken"
        with pytest.raises(DigestError, match=name):
            pull(place)
        flip(place / name)
    cached = pull(None)
    for name in sorted(set(names) - {FolderFiles.PULLED}):
        blob = (cached / name).resolve()
        flip(blob)
        found = verify([str(cached)], torch=False)
        assert name in broken(found)["files"], found
        with pytest.raises(DigestError, match=name):
            pull(None)
        pull(None)


def test_what_lies_beside_and_what_is_gone(model: Path) -> None:
    (model / "weights.pkl").write_bytes(b"\x80\x04.")
    (model / "notes.txt").write_text("of somebody else")
    (model / FolderFiles.HEAD).unlink()
    found = [link.detail for link in verify([str(model)], torch=False) if link.state == "broken"]
    assert len(found) == 3
    assert f"{FolderFiles.HEAD}: missing" in found[0]
    assert "notes.txt: ptft.json does not record it" in found[1]
    assert "weights.pkl: a .pkl file may run code" in found[2]


def test_another_recipe(model: Path, trained: Path) -> None:
    path = model / FolderFiles.RECIPE
    path.write_text(path.read_text().replace("lr: 0.0005", "lr: 0.5"))
    record(model)
    assert list(broken(verify([str(model)], torch=False))) == ["recipe"]
    path.write_text("name: [")
    record(model)
    assert FolderFiles.RECIPE in broken(verify([str(model)], torch=False))["recipe"]


def test_another_run(model: Path, trained: Path, tmp_path: Path) -> None:
    other = shutil.copytree(trained, tmp_path / "other")
    weights = other / RunFiles.FINAL / "model.safetensors"
    flip(weights)
    links = verify([str(other), str(model)], torch=False)
    wrong = [link for link in links if link.state == "broken"]
    assert [(link.name, link.target) for link in wrong] == [
        ("run", str(other)),
        ("run", str(model)),
    ]
    assert str(weights) in wrong[0].detail
    values = json.loads((other / RunFiles.RUN).read_text())
    values["weights_digest"] = file_sha256(weights)
    values["files"] = hash_files(other / RunFiles.FINAL)
    (other / RunFiles.RUN).write_text(json.dumps(values))
    links = verify([str(other), str(model)])
    assert [(link.name, link.target) for link in links if link.state == "broken"] == [
        ("run", str(model)),
        ("weights", str(model)),
    ]


def test_other_weights_under_the_same_record(model: Path, exported: Path) -> None:
    """Each half is run: what torch reads, and what onnxruntime does."""
    from safetensors.torch import load_file, save_file

    path = model / FolderFiles.OPEN_CLIP_WEIGHTS
    tensors = load_file(path)
    tensors["visual.ln_post.weight"] += torch.arange(64) / 64
    save_file(tensors, path, metadata={"format": "pt"})
    record(model)
    found = verify([str(model)])
    assert list(broken(found)) == ["golden torch"] and "image_embeds differs by" in str(found)

    onnx = model / FolderFiles.VISION_ONNX
    data = onnx.read_bytes()
    weight = load_file(exported / FolderFiles.OPEN_CLIP_WEIGHTS)["visual.ln_post.weight"]
    same, other = weight.numpy().tobytes(), tensors["visual.ln_post.weight"].numpy().tobytes()
    assert same in data
    onnx.write_bytes(data.replace(same, other))
    record(model)
    assert list(broken(verify([str(model)], torch=False))) == ["golden onnx fp32"]
    onnx.write_bytes(b"no model")
    record(model)
    assert (
        "no ONNX file that is read here"
        in broken(verify([str(model)], torch=False))["golden onnx fp32"]
    )


def test_a_head_and_a_tokenizer_are_held_too(model: Path) -> None:
    from safetensors.torch import load_file, save_file

    head = load_file(model / FolderFiles.HEAD)
    save_file({**head, "bias": head["bias"].flip(0).contiguous()}, model / FolderFiles.HEAD)
    record(model)
    found = broken(verify([str(model)]))
    assert "class_logits differs by" in found["golden onnx fp32"] + found["golden torch"]
    record(model, tokenizer={**read_model_info(model).tokenizer, "clean": "whitespace"})
    assert "has other tokens here" in broken(verify([str(model)], torch=False))["golden onnx fp32"]


def test_a_digest_stands_for_a_folder(exported: Path, service: Start) -> None:
    digest = read_model_info(exported).digest
    assert states(verify([digest, str(exported)], torch=False))["digest"] == "ok"
    other = "sha256:" + "0" * 64
    assert list(broken(verify([other, str(exported)], torch=False))) == ["digest"]
    with service(exported) as url:
        assert states(verify([digest, url])) == {"service": "ok", "golden service": "unchecked"}
        assert digest in broken(verify([other, url]))["service"]


def test_a_service_of_another_model_or_with_other_answers(
    model: Path, exported: Path, service: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    record(model, templates=["a {}"])
    with service(exported) as url:
        links = verify([str(model), url], torch=False)
        assert list(broken(links)) == ["service"]
        monkeypatch.setattr(embed, "write_embedding", lambda row, _: np.negative(row))
        found = broken(verify([str(exported), url], torch=False))
        assert list(found) == ["golden service fp32"]
        assert "text_embeds differs by" in found["golden service fp32"]
    assert "ConnectError" in broken(verify([str(exported), url], torch=False))["service"]


def test_targets_that_are_none(exported: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="name its folder"):
        verify(["http://127.0.0.1:1"])
    with pytest.raises(UsageError, match=r"holds no model; looked for ptft\.json"):
        verify([str(tmp_path)])
    with pytest.raises(UsageError, match="allowed: a run, a model folder"):
        verify(["ftp://example.org/model"])


def test_the_command_on_a_revision_without_torch(
    hub: LoopbackHub, exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    push_model(exported, REPO_ID, tag="v1", endpoint=hub.url, token=TOKEN)
    without = "import sys; sys.modules['torch'] = None; from ptft.cli.main import main; main()"
    monkeypatch.setattr(
        "tests.support.hub_parts.COMMAND", [run.__globals__["sys"].executable, "-c", without]
    )
    done = run(hub, tmp_path / "home", "verify", f"{REPO_ID}@v1", "--json")
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    found = {link["name"]: link["state"] for link in answer["links"]}
    assert answer["ok"] and found["hub"] == found["golden onnx fp32"] == "ok"
    assert found["golden torch"] == "unchecked"
    hub.faults.corrupt(f"/{FolderFiles.TEXT_ONNX}")
    done = run(hub, tmp_path / "fresh", "verify", f"{REPO_ID}@v1")
    assert done.returncode == 1 and done.stdout.startswith("broken     hub")
    assert FolderFiles.TEXT_ONNX in done.stdout and "Traceback" not in done.stderr
