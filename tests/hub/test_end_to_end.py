"""A real model goes to the Hub and comes back the same, for ptft and for open_clip."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from huggingface_hub import CommitOperationAdd, HfApi, constants

from ptft.artifact import FolderFiles, read_model_info, write_model_info
from ptft.compat import import_open_clip
from ptft.export import export_model
from ptft.hub import pull_model, push_model
from ptft.hub.card import EMPTY
from ptft.model import DualEncoder, load_model, save_model
from tests.support import tiny
from tests.support.hub_parts import REPO_ID, TOKEN, folder_bytes
from tests.support.loopback_hub import LoopbackHub

# huggingface_hub sends LFS files to its own HTTP client in a deprecated way
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[LoopbackHub]:
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    with LoopbackHub(token=TOKEN) as hub:
        yield hub


@pytest.fixture(scope="module")
def model() -> DualEncoder:
    return tiny.build(tiny.arch_section("tiny-vit"), seed=3)


@pytest.fixture(scope="module")
def folder(model: DualEncoder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder from the real export, which takes seconds."""
    place = tmp_path_factory.mktemp("export")
    save_model(model, place / "checkpoint")
    export_model(
        place / "checkpoint",
        place / "model",
        name="tiny",
        licence="apache-2.0",
        precisions=(),
    )
    return place / "model"


def embeddings(model: DualEncoder) -> tuple[torch.Tensor, torch.Tensor]:
    with torch.no_grad():
        return model.eval()(tiny.pictures(model), tiny.tokens(model))


def test_same_embeddings_after_the_way_to_the_hub_and_back(
    hub: LoopbackHub, model: DualEncoder, folder: Path, tmp_path: Path
) -> None:
    done = push_model(folder, REPO_ID, tag="v1", endpoint=hub.url, token=TOKEN)
    assert not done.notes and set(done.sent) == {*folder_bytes(folder), FolderFiles.CARD}
    cache = tmp_path / "cache"
    pulled = pull_model(f"{REPO_ID}@v1", tmp_path / "pulled", endpoint=hub.url, cache_dir=cache)
    assert folder_bytes(pulled) == folder_bytes(folder)
    assert read_model_info(pulled) == read_model_info(folder)

    expected = embeddings(model)
    for place in (pulled, pull_model(f"{REPO_ID}@v1", endpoint=hub.url, cache_dir=cache)):
        again = embeddings(load_model(place))
        assert all(torch.equal(a, b) for a, b in zip(expected, again, strict=True))

    open_clip = import_open_clip()
    other, _ = open_clip.create_model_from_pretrained(f"local-dir:{pulled}")
    tokens = open_clip.get_tokenizer(f"local-dir:{pulled}")(
        ["a red circle", "a photo of a cat", ""]
    )
    with torch.no_grad():
        images = other.eval().encode_image(tiny.pictures(model), normalize=True)
        texts = other.encode_text(tokens, normalize=True)
    torch.testing.assert_close(images, expected[0], rtol=0, atol=1e-6)
    torch.testing.assert_close(texts, expected[1], rtol=0, atol=1e-6)


def test_notes_written_on_the_hub_outlive_a_new_version(
    hub: LoopbackHub, folder: Path, tmp_path: Path
) -> None:
    two = tmp_path / "two"
    shutil.copytree(folder, two)
    push = partial(push_model, repo=REPO_ID, endpoint=hub.url, token=TOKEN)
    push(folder)
    card = hub.content(REPO_ID, "README.md").decode()
    empty = f"<!-- keep notes -->\n{EMPTY}\n"
    card = card.replace(empty, "<!-- keep notes -->\nMind the shadows.\n")
    card = card.replace("---\n", "---\nlanguage: en\n", 1)
    edit = [CommitOperationAdd("README.md", card.encode())]
    HfApi(hub.url, token=TOKEN).create_commit(REPO_ID, edit, commit_message="by hand")

    # what the export writes for the same weights under another name
    write_model_info(two, replace(read_model_info(two), name="two"))
    text = (two / "README.md").read_text()
    (two / "README.md").write_text(text.replace("# tiny\n", "# two\n"))
    assert set(push(two).sent) == {"README.md", "ptft.json"}
    card = hub.content(REPO_ID, "README.md").decode()
    assert "# two\n" in card and "Mind the shadows." in card and "language: en" in card
    assert EMPTY not in card and push(two).sent == {}
