"""A model that learned from pictures alone, from its recipe to a gate: it is asked by no text."""

import io
from pathlib import Path

import pytest
from PIL import Image
from starlette.testclient import TestClient

from ptft.artifact import FolderFiles, read_json, read_model_info
from ptft.export import export_model
from ptft.export.quality import judge_texts
from ptft.gate import gate
from ptft.model import load_model
from ptft.pages.markdown import card_metadata
from ptft.recipe import ClipObjective, SelfSupervisedObjective, load_recipe
from ptft.verify import verify
from serving.routes import create_app
from serving.settings import Settings
from tests.serving.server import wait_until_ready
from tests.support.runs import run
from tests.support.served import served

ALONE = {
    "objective": {"kind": "self_supervised"},
    "augment": {"crop_scale": [0.3, 1.0]},
    "optim__samples_seen": 32,
    "run__page": False,
}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a model whose image tower alone learned, from random weights."""
    folder = tmp_path_factory.mktemp("alone")
    run(folder / "run", **ALONE)
    export_model(folder / "run", folder / "model", precisions=["fp32"], progress=lambda _: None)
    return folder / "model"


def test_its_recipe_trains_again(model: Path) -> None:
    recipe = load_recipe(model / FolderFiles.RECIPE)
    assert isinstance(recipe.objective, SelfSupervisedObjective)
    assert recipe.augment.crop_scale == (0.3, 1.0)


def test_its_card_says_that_texts_say_nothing(model: Path) -> None:
    info = read_model_info(model)
    assert (info.task, info.texts, info.aligned) == ("embed", "refused", False)
    assert read_json(model / FolderFiles.METRICS)["texts"]["offered"] == "refused"
    card = (model / FolderFiles.CARD).read_text()
    front = card_metadata(card)
    assert front["pipeline_tag"] == "image-feature-extraction"
    assert "image-text" not in front["tags"]
    assert "Embeds images into a space of 16 dimensions" in card
    assert "its towers never learned together" in card
    assert not any(one in card for one in ("tokenizer(", "embed/text", "v1/classify", "classifier"))


def test_the_service_embeds_pictures_and_refuses_texts(model: Path) -> None:
    stream = io.BytesIO()
    Image.new("RGB", (40, 40), "red").save(stream, "PNG")
    files = {"images": stream.getvalue()}
    with TestClient(create_app(lambda: Settings(model=model, threads=1))) as ask:
        wait_until_ready(ask)
        refused = [
            ask.post("/v1/embed/text", json={"texts": ["a red circle"]}),
            ask.post("/v1/classify", files=files, data={"labels": ["red", "blue"]}),
        ]
        assert ask.post("/v1/embed/image", files=files).status_code == 200
    for answer in refused:
        error = answer.json()["error"]
        assert (answer.status_code, error["type"]) == (422, "texts_refused")
        assert error["message"].endswith("allowed: pictures, to embed")


def test_it_is_verified_and_passes_a_gate(model: Path) -> None:
    with served(Settings(model=model, threads=1)) as url:
        links = {link.name: link.state for link in verify([str(model), url])}
        assert links["golden service fp32"] == "ok"
        checks = gate(str(model), live=url)
    assert len(checks) > 1
    assert [check for check in checks if not check.ok] == []


def test_a_start_that_knew_texts_is_offered_with_a_warning(model: Path) -> None:
    spec = load_model(model).spec
    found = judge_texts(spec.with_(aligned=True), "embed", {}, SelfSupervisedObjective())
    assert found.offered == "warned"
    assert "went on learning from pictures alone" in found.reason
    for objective in (ClipObjective(), None):
        known = spec.with_(aligned=None if objective is None else True)
        assert judge_texts(known, "embed", {}, objective).offered == "yes"
