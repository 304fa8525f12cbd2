"""The licence of the weights that a model starts from, from the run to the Hub; never guessed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import CommitOperationAdd, HfApi, constants

from ptft.artifact import RunFiles
from ptft.errors import UsageError
from ptft.hub import push_model
from ptft.model.licence import base_licence, card_licence, common_licence, run_licence
from ptft.pages.markdown import UNKNOWN, card_metadata
from ptft.recipe import Recipe
from ptft.recipe.load import parse_recipe
from ptft.runs.folder import read_run, start_run
from tests.support.hub_parts import CARD, REPO_ID, TOKEN, make_folder
from tests.support.loopback_hub import LoopbackHub

BASE = "org/base"
ARCH = {"name": "ViT-B-32"}


def recipe(**values: Any) -> Recipe:
    common = {"name": "x", "data": {"kind": "scenes"}}
    optim = {"samples_seen": 64, "global_batch": 8}
    return parse_recipe({**common, "optim": optim, **values}, where="test")


def publish(hub: LoopbackHub, repo: str, card: str) -> None:
    api = HfApi(hub.url, token=TOKEN)
    api.create_repo(repo)
    operations = [CommitOperationAdd("README.md", card.encode())]
    api.create_commit(repo, operations, commit_message="card")


@pytest.fixture
def asked(hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> LoopbackHub:
    """The Hub that functions without an endpoint of their own ask."""
    monkeypatch.setattr("huggingface_hub.file_download.ENDPOINT", hub.url, raising=False)
    monkeypatch.setattr(constants, "ENDPOINT", hub.url)
    template = hub.url + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    return hub


@pytest.mark.parametrize(
    ("licences", "expected"),
    [
        ((), ""),
        (("mit",), "mit"),
        (("mit", "mit", ""), "mit"),
        (("mit", "apache-2.0"), UNKNOWN),
        (("mit", UNKNOWN), UNKNOWN),
        (("",), ""),
    ],
)
def test_several_bases(licences: tuple[str, ...], expected: str) -> None:
    assert common_licence(licences) == expected


def test_random_weights_and_timm(tmp_path: Path) -> None:
    assert base_licence(recipe(model=ARCH)) == ""
    text = {"width": 32, "layers": 1, "heads": 2}
    towers = {"image": "vit_base_patch16_224", "text": text}
    assert base_licence(recipe(model=towers)) == ""
    # as timm itself has it
    tagged = {**towers, "image_weights": "augreg_in21k"}
    assert base_licence(recipe(model=tagged)) == "apache-2.0"
    (tmp_path / "w.safetensors").write_bytes(b"")
    local = {**towers, "image_weights": str(tmp_path / "w.safetensors")}
    assert base_licence(recipe(model=local)) == UNKNOWN


def test_a_folder_and_a_run_hand_theirs_on(tmp_path: Path) -> None:
    base = make_folder(tmp_path / "base")
    assert card_licence(base / "README.md") == "apache-2.0"
    from_folder = recipe(init={"from": str(base)})
    run = tmp_path / "run"
    assert start_run(run, from_folder, device="cpu", total=1).licence == "apache-2.0"
    (base / "README.md").unlink()  # the record outlives its source
    assert read_run(run).licence == run_licence(run) == "apache-2.0"
    (run / RunFiles.FINAL).mkdir()
    (run / RunFiles.FINAL / RunFiles.SPEC).write_text("{}")
    assert base_licence(recipe(init={"from": str(run)})) == "apache-2.0"
    assert base_licence(recipe(init={"from": str(run / RunFiles.FINAL)})) == "apache-2.0"
    assert base_licence(recipe(init={"from": str(run), "weights": False}, model=None)) == ""
    values = json.loads((run / RunFiles.RUN).read_text())
    del values["licence"]  # a run of before this was recorded
    (run / RunFiles.RUN).write_text(json.dumps(values))
    assert run_licence(run) == UNKNOWN
    (base / "README.md").write_text(CARD)
    assert run_licence(run) == "apache-2.0"


def test_a_repository_says_it_in_its_card(asked: LoopbackHub) -> None:
    publish(asked, BASE, "---\nlicense: mit\n---\n")
    publish(asked, "org/silent", "---\nlibrary_name: x\n---\n")
    for source in ({"init": {"from": BASE}}, {"model": {**ARCH, "pretrained": f"{BASE}@main"}}):
        assert base_licence(recipe(**source)) == "mit"
    assert base_licence(recipe(init={"from": "org/silent"})) == UNKNOWN
    assert base_licence(recipe(init={"from": "org/nowhere"})) == UNKNOWN
    tag = {**ARCH, "pretrained": "laion2b_s34b_b79k"}  # open_clip knows the repository
    assert base_licence(recipe(model=tag)) == UNKNOWN
    asked.add_token(TOKEN, "tester", "org", "laion")
    publish(asked, "laion/CLIP-ViT-B-32-laion2B-s34B-b79K", "---\nlicense: mit\n---\n")
    assert base_licence(recipe(model=tag)) == "mit"


def test_nothing_is_asked_of_the_hub_for_a_run_which_may_be_anybodys(
    asked: LoopbackHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(asked, BASE, "---\nlicense: mit\n---\n")
    run = tmp_path / "run"
    assert start_run(run, recipe(init={"from": BASE}), device="cpu", total=1).licence == "mit"
    values = json.loads((run / RunFiles.RUN).read_text())
    del values["licence"]  # its recipe alone names the repository
    (run / RunFiles.RUN).write_text(json.dumps(values))
    before = len(asked.requests)
    assert run_licence(run) == "mit", "of the card in the cache"
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "another"))
    assert run_licence(run) == UNKNOWN
    assert base_licence(recipe(init={"from": str(run)})) == UNKNOWN
    assert len(asked.requests) == before


def test_an_unknown_licence_stops_a_push(hub: LoopbackHub, tmp_path: Path) -> None:
    card = CARD.replace("license: apache-2.0", f"license: unknown\nbase_model: {BASE}")
    folder = make_folder(tmp_path / "model", **{"README.md": card})

    def push(**options: Any) -> str:
        push_model(folder, REPO_ID, endpoint=hub.url, token=TOKEN, **options)
        return str(card_metadata(hub.content(REPO_ID, "README.md").decode())["license"])

    for dry_run in (True, False):
        with pytest.raises(UsageError, match=f"licence of {BASE} is unknown.*--license") as caught:
            push(dry_run=dry_run)
        assert "\n" not in str(caught.value) and hub.repos == {}
    publish(hub, BASE, "---\nlicense: mit\n---\n")  # its card says it now
    assert push() == "mit"
    assert push(licence="cc-by-4.0") == "cc-by-4.0"
    assert push() == "cc-by-4.0"  # as it was given once, not as the base has it
    assert push(licence="cc-by-4.0") == "cc-by-4.0"
    assert len(hub.repos[REPO_ID].history()) == 3

    lone = CARD.replace("license: apache-2.0", "license: unknown")
    folder = make_folder(tmp_path / "lone", **{"README.md": lone})
    with pytest.raises(UsageError, match="the weights it started from is unknown"):
        push_model(folder, "tester/lone", endpoint=hub.url, token=TOKEN)
    assert "tester/lone" not in hub.repos
