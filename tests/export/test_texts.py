"""A classifier whose text tower never learned says so, wherever it is asked."""

import io
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from starlette.testclient import TestClient

from ptft.artifact import (
    FolderFiles,
    ModelInfo,
    RunFiles,
    read_json,
    read_model_info,
    write_json,
)
from ptft.evaluate import evaluate
from ptft.export import export_model
from ptft.export.quality import judge_texts
from ptft.gate import gate
from ptft.model import DualEncoder, build_model, load_model
from ptft.model.spec import load_spec, save_spec
from ptft.pages.markdown import card_metadata
from ptft.recipe import (
    ClassifyEvaluation,
    ClassifyObjective,
    ClipObjective,
    InitSection,
    SiglipObjective,
    ZeroShotEvaluation,
)
from ptft.verify import verify
from serving.routes import create_app
from serving.settings import Settings
from tests.serving.server import wait_until_ready
from tests.support import tiny
from tests.support.runs import recipe, run
from tests.support.served import served

CLASSES = ["one", "two", "three", "four"]
FIGURES = {"zero_shot_top1": 0.24, "top1": 0.96, "chance": 0.25}


def classifier(objective: Any = None) -> DualEncoder:
    model = build_model(tiny.towers_section(), None, objective or ClassifyObjective(), seed=0)
    model.set_head(torch.eye(4, model.spec.embed_dim), CLASSES, ["a {}"])
    return model


@pytest.mark.parametrize(
    ("aligned", "names", "expected"),
    [
        (False, 0.24, "refused"),
        (False, 0.42, "refused"),  # 17 of the 71 points that the head gains
        (False, 0.43, "warned"),  # class names are what its head began with; other texts are not
        (True, 0.24, "warned"),
        (None, 0.24, "warned"),
        (True, 0.43, "yes"),
        (False, None, "refused"),
        (None, None, "yes"),
    ],
)
def test_what_was_measured_decides(
    aligned: bool | None, names: float | None, expected: str
) -> None:
    spec = classifier().spec.with_(aligned=aligned)
    figures = {} if names is None else {"own": {**FIGURES, "zero_shot_top1": names}}
    found = judge_texts(spec, "classify", {"x": {"top1": 0.1}, **figures})
    assert found.offered == expected
    assert bool(found.reason) == (expected != "yes")
    if names is not None:
        assert found.figures == {**FIGURES, "zero_shot_top1": names}
    without_head = judge_texts(spec, "embed", figures).offered  # nothing but pictures ever learned
    assert without_head == ("refused" if aligned is False else "yes")
    assert judge_texts(spec.with_(reads="both"), "classify", figures).offered == "yes"


def test_a_head_that_learned_nothing_is_no_measure_of_texts() -> None:
    spec = classifier().spec
    figures = {"own": {"zero_shot_top1": 0.25, "top1": 0.2, "chance": 0.25}}
    assert judge_texts(spec, "classify", figures).offered == "refused"


def test_what_makes_towers_learn_together(tmp_path: Path) -> None:
    assert classifier().spec.aligned is False
    assert classifier(ClipObjective()).spec.aligned is True
    assert classifier(SiglipObjective()).spec.aligned is True
    for spec in (classifier().spec, classifier(ClipObjective()).spec):
        save_spec(spec, tmp_path)
        assert load_spec(tmp_path).aligned is spec.aligned
    save_spec(spec.with_(aligned=None), tmp_path)
    assert "aligned" not in read_json(tmp_path / "model.json")  # older readers know no such key


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A run by ``classify`` from random towers, and its model folder."""
    folder = tmp_path_factory.mktemp("tuned")
    run(
        folder / "run",
        objective__kind="classify",
        data__train=32,
        optim__samples_seen=32,
        evaluate=[{"kind": "classify"}],
    )
    metrics = read_json(folder / "run" / RunFiles.METRICS)
    assert {"top1", "zero_shot_top1", "chance"} <= metrics["classify"].keys()
    metrics["classify"] |= FIGURES  # as of a longer training
    write_json(folder / "run" / RunFiles.METRICS, metrics)
    export_model(folder / "run", folder / "model", precisions=["fp32"], progress=lambda _: None)
    return folder / "run", folder / "model"


def test_the_figure_is_that_of_zero_shot(tuned: tuple[Path, Path]) -> None:
    model = load_model(tuned[0])
    assert model.head is not None  # as it began it is what zero-shot asks
    with torch.no_grad():
        model.head.weight.copy_(model.head.weight.roll(1, dims=0))
    data = recipe(tuned[0], objective__kind="classify").data
    items = [ClassifyEvaluation(), ZeroShotEvaluation(templates=list(model.spec.templates))]
    found = evaluate(model, items, data, seed=0, device="cpu", workers=0)
    assert found["classify"]["zero_shot_top1"] == found["zero_shot"]["top1"]
    assert found["classify"]["top1"] != found["zero_shot"]["top1"]


def test_the_folder_and_its_card_say_so(tuned: tuple[Path, Path]) -> None:
    run_folder, folder = tuned
    assert load_spec(run_folder / "final").aligned is False
    info = read_model_info(folder)
    measured = read_json(folder / FolderFiles.METRICS)["texts"]
    assert (info.texts, measured["offered"]) == ("refused", "refused")
    assert measured["figures"] == FIGURES
    card = (folder / FolderFiles.CARD).read_text()
    assert "find 24.0% of the pictures' classes, where its head finds 96.0%" in card
    front = card_metadata(card)
    assert front["pipeline_tag"] == "image-classification"
    assert "image-text" not in front["tags"]
    assert "tokenizer(" not in card and "embed/text" not in card
    again = build_model(
        None, InitSection.model_validate({"from": str(folder)}), ClassifyObjective(), seed=0
    )
    assert again.spec.aligned is False


@pytest.mark.parametrize("names", [0.24, 0.9])  # refused, and warned alone
def test_the_record_outlives_a_second_export(
    tuned: tuple[Path, Path], names: float, tmp_path: Path
) -> None:
    """Of a model that is only warned class names find enough, and that it never learned them
    remains true of whatever begins with it."""
    run_folder = shutil.copytree(tuned[0], tmp_path / "run")
    metrics = read_json(run_folder / RunFiles.METRICS)
    metrics["classify"] |= {"zero_shot_top1": names}
    write_json(run_folder / RunFiles.METRICS, metrics)
    source = run_folder
    for number in range(2):
        folder = tmp_path / f"model{number}"
        export_model(source, folder, precisions=["fp32"], progress=lambda _: None)
        info = read_model_info(folder)
        assert info.texts == ("warned" if names > 0.5 else "refused")
        assert info.texts_reason.endswith(
            "its towers never learned together, only its classifier did"
        )
        assert load_model(folder).spec.aligned is False
        source = folder


def test_the_service_refuses_texts_and_answers_pictures(tuned: tuple[Path, Path]) -> None:
    info: ModelInfo = read_model_info(tuned[1])
    stream = io.BytesIO()
    Image.new("RGB", (40, 40), "red").save(stream, "PNG")
    files = {"images": stream.getvalue()}
    with TestClient(create_app(lambda: Settings(model=tuned[1], threads=1))) as ask:
        wait_until_ready(ask)
        refused = [
            ask.post("/v1/embed/text", json={"texts": ["a red circle"]}),
            ask.post("/v1/classify", files=files, data={"labels": ["red", "blue"]}),
            ask.post("/v1/embeddings", json={"input": "a red circle", "model": info.name}),
            ask.post("/v1/similarity", files=files, data={"texts": ["a red circle"]}),
        ]
        answered = [ask.post(f"/v1/{path}", files=files) for path in ("classify", "embed/image")]
        told = ask.get("/v1/model").json()
        golden = ask.get("/v1/golden")
    for answer in refused:
        assert (answer.status_code, answer.json()["error"]["type"]) == (422, "texts_refused")
        assert info.texts_reason in answer.json()["error"]["message"]
    assert [answer.status_code for answer in (*answered, golden)] == [200, 200, 200]
    assert (told["texts"], told["texts_reason"]) == ("refused", info.texts_reason)


def test_what_was_trained_is_shown_to_be_served_without_texts(tuned: tuple[Path, Path]) -> None:
    """The golden texts are held by the service itself, and a gate asks pictures alone."""
    with served(Settings(model=tuned[1], threads=1)) as url:
        links = verify([str(tuned[1]), url])
        assert {link.name: link.state for link in links if link.name.endswith("service fp32")} == {
            "golden service fp32": "ok"
        }
        for release, seconds in ((str(tuned[1]), 0.0), (url, 0.2)):
            checks = gate(release, live=url, seconds=seconds)
            assert [check for check in checks if not check.ok] == []
            assert ("slower" in {check.name for check in checks}) == (seconds > 0)
