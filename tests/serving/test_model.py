"""A model folder on onnxruntime: precisions, and what is said of a folder that does not do."""

import asyncio
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ptft.artifact import FolderFiles, ModelInfo, hash_files, write_model_info
from ptft.errors import ArtifactError, DigestError
from ptft.onnx.model import OnnxModel
from serving.model import load_model, open_model, verify_model
from serving.routes import create_app
from serving.settings import Settings
from tests.serving.conftest import Client
from tests.serving.running import until


@pytest.fixture
def copy(folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(folder, tmp_path / "model"))


@pytest.fixture(scope="module")
def quantised(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy with int8 towers beside the others."""
    from onnxruntime.quantization import quantize_dynamic

    from ptft.artifact import read_model_info

    copy = Path(shutil.copytree(folder, tmp_path_factory.mktemp("int8") / "model"))
    for name in (FolderFiles.VISION_ONNX, FolderFiles.TEXT_ONNX):
        small = copy / name.replace(".onnx", "_quantized.onnx")
        quantize_dynamic(copy / name, small, op_types_to_quantize=["MatMul", "Gemm"])
    write_model_info(copy, replace(read_model_info(folder), files=hash_files(copy)))
    return copy


def test_int8_does_not_depend_on_company(
    quantised: Path, client: Client, pictures: list[bytes]
) -> None:
    with client(model=quantised, precision="int8") as ask:
        files = [("images", data) for data in pictures]
        together = ask.post("/v1/embed/image", files=files).json()["results"]
        alone = [
            ask.post("/v1/embed/image", files={"images": data}).json()["results"][0]
            for data in pictures
        ]
        assert ask.get("/v1/model").json()["precision"] == "int8"
    assert [one["embedding"] for one in together] == [one["embedding"] for one in alone]


def test_a_precision_that_is_absent(folder: Path) -> None:
    with pytest.raises(ArtifactError, match=r"no onnx/text_model_fp16\.onnx.*allowed: fp32$"):
        verify_model(Settings(model=folder, precision="fp16"))


def test_a_tower_that_is_swapped_after_the_check_is_not_served(
    copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a link to the same bytes, which may be others a moment later."""

    def swapped(settings: Settings, info: ModelInfo) -> OnnxModel:
        tower = settings.model / FolderFiles.VISION_ONNX
        tower.rename(tower.with_name("away.onnx"))
        tower.symlink_to("away.onnx")
        return open_model(settings, info)

    async def play() -> str:
        app = create_app(lambda: Settings(model=copy))
        async with app.router.lifespan_context(app):
            health = app.state.serving.health
            await until(lambda: bool(health.failure))
            return str(health.failure)

    monkeypatch.setattr("serving.state.open_model", swapped)
    assert "changed between the check of its bytes and their use" in asyncio.run(play())


def test_weights_of_torch_may_be_absent(copy: Path, info: ModelInfo) -> None:
    (copy / FolderFiles.OPEN_CLIP_WEIGHTS).unlink()
    model = load_model(Settings(model=copy))
    assert model.info.digest == info.digest
    (copy / FolderFiles.VISION_ONNX).unlink()
    with pytest.raises(DigestError, match=r"vision_model\.onnx: missing"):
        load_model(Settings(model=copy))


def test_no_folder_and_no_golden(copy: Path, info: ModelInfo, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="no such folder"):
        load_model(Settings(model=tmp_path / "absent"))
    (copy / FolderFiles.GOLDEN).unlink()
    write_model_info(copy, replace(info, files=hash_files(copy)))
    with pytest.raises(ArtifactError, match=r"golden\.safetensors: .* is not opened"):
        load_model(Settings(model=copy))


def test_golden_tokens_and_logits_are_held(copy: Path, info: ModelInfo) -> None:
    changed = replace(info, tokenizer={**info.tokenizer, "clean": "none"})
    write_model_info(copy, changed)
    with pytest.raises(ArtifactError, match="has other tokens here"):
        load_model(Settings(model=copy))
    write_model_info(copy, replace(info, logit_scale=info.logit_scale / 10))
    with pytest.raises(ArtifactError, match="class_logits differs"):
        load_model(Settings(model=copy))


def test_images_without_classes_need_labels(
    copy: Path, info: ModelInfo, client: Client, pictures: list[bytes]
) -> None:
    (copy / FolderFiles.HEAD).unlink()
    plain = replace(info, task="embed", classes=[], files=hash_files(copy))
    write_model_info(copy, plain)
    with client(model=copy) as ask:
        answer = ask.post("/v1/classify", files={"images": pictures[0]})
        zero_shot = ask.post(
            "/v1/classify", files={"images": pictures[0]}, data={"labels": ["x", "y"]}
        )
    assert (answer.status_code, answer.json()["error"]["type"]) == (422, "no_labels")
    probabilities = [entry["probability"] for entry in zero_shot.json()["results"][0]["classes"]]
    assert np.isclose(sum(probabilities), 1, atol=1e-5)
