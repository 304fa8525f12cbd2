"""Models from the Hub, with the real client against the loopback Hub."""

import json
import logging
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import huggingface_hub
import pytest
import torch
from huggingface_hub import CommitOperationAdd, HfApi, constants, snapshot_download

from ptft.errors import HubError, ModelError
from ptft.model import DualEncoder, load_model, open_clip_state_dict, save_model
from tests.support import tiny
from tests.support.loopback_hub import LoopbackHub

# huggingface_hub sends LFS files to its own HTTP client in a deprecated way
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")

REPO_ID = "tester/model"


@pytest.fixture
def loopback() -> Iterator[LoopbackHub]:
    with LoopbackHub(token="hf_test") as hub:
        yield hub


@pytest.fixture
def api(loopback: LoopbackHub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> HfApi:
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    # what HF_ENDPOINT sets, but for the reading of it when the client is imported
    there = partial(snapshot_download, endpoint=loopback.url)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", there)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "ENDPOINT", loopback.url)
    template = loopback.url + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    api = HfApi(endpoint=loopback.url, token="hf_test")
    api.create_repo(REPO_ID)
    return api


def push(api: HfApi, files: dict[str, bytes]) -> None:
    operations = [CommitOperationAdd(path, content) for path, content in files.items()]
    api.create_commit(REPO_ID, operations, commit_message="a push")


def open_clip_files(model: DualEncoder) -> dict[str, bytes]:
    from safetensors.torch import save

    values = {
        "model_cfg": model.spec.open_clip_config,
        "preprocess_cfg": model.spec.preprocess.to_config(),
    }
    state = {key: value.contiguous() for key, value in open_clip_state_dict(model).items()}
    return {
        "open_clip_config.json": json.dumps(values).encode(),
        "open_clip_model.safetensors": save(state),
    }


def test_a_revision_is_honoured_and_pickles_stay_there(api: HfApi, tmp_path: Path) -> None:
    first, second = tiny.build(tiny.arch_section(), seed=1), tiny.build(tiny.arch_section(), seed=2)
    push(api, {**open_clip_files(first), "pytorch_model.bin": b"pickled", "code.py": b"1"})
    api.create_tag(REPO_ID, tag="v1")
    push(api, open_clip_files(second))
    model = load_model(f"{REPO_ID}@v1")
    assert torch.equal(model.image.proj, first.image.proj)
    assert model.spec.base == f"{REPO_ID}@v1"
    assert model.spec.name == "model"
    assert torch.equal(load_model(REPO_ID).image.proj, second.image.proj)
    assert not [p for p in (tmp_path / "cache").rglob("*") if p.suffix in (".bin", ".py")]
    from_hub = tiny.build(tiny.arch_section(pretrained=f"{REPO_ID}@v1"))
    assert torch.equal(from_hub.text.text_projection, first.text.text_projection)
    with pytest.raises(HubError, match="model@v9: no such folder here; cannot be fetched"):
        load_model(f"{REPO_ID}@v9")
    with pytest.raises(HubError, match="tester/absent: no such folder here; cannot be fetched"):
        load_model("tester/absent")


def test_what_a_recipe_names_is_said_before_it_is_asked_for(
    loopback: LoopbackHub, api: HfApi, caplog: pytest.LogCaptureFixture
) -> None:
    push(api, open_clip_files(tiny.build(tiny.arch_section())))
    api.create_tag(REPO_ID, tag="said")
    before, asked = len(loopback.calls(REPO_ID)), []
    caplog.handler.addFilter(lambda _: asked.append(len(loopback.calls(REPO_ID))) is None)
    with caplog.at_level(logging.INFO, "ptft"):
        for _ in range(2):
            load_model(f"{REPO_ID}@said")  # as init.from and distill.from do
    assert caplog.messages == [f"{REPO_ID}@said: from the Hub, unless the cache has it"]
    assert asked == [before] and len(loopback.calls(REPO_ID)) > before


def test_only_a_pickle(api: HfApi) -> None:
    files = open_clip_files(tiny.build(tiny.arch_section()))
    push(api, {"open_clip_config.json": files["open_clip_config.json"], "a.bin": b"pickled"})
    with pytest.raises(ModelError, match=r"no safetensors weights; .*a pickle.*never"):
        load_model(REPO_ID)


def test_a_transformers_tower_with_a_revision(api: HfApi, tmp_path: Path) -> None:
    folder = tiny.hf_text_folder(tmp_path / "bert")
    push(api, {path.name: path.read_bytes() for path in folder.iterdir()})
    api.create_tag(REPO_ID, tag="v1")
    push(api, {"config.json": b"{}"})
    section = tiny.towers_section(text=f"{REPO_ID}@v1", context_length=16)
    model = tiny.build(section)
    assert model.spec.config["text_cfg"]["hf_model_name"] == REPO_ID
    assert model.spec.open_clip_needs is None
    assert model.spec.base == f"{REPO_ID} without pooler.dense"
    save_model(model, tmp_path / "saved")
    again = load_model(tmp_path / "saved")
    tokens = tiny.tokens(model)
    with torch.no_grad():
        assert torch.equal(again.encode_text(tokens), model.encode_text(tokens))
