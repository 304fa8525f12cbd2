"""A classifier of texts, or of texts with pictures: a run, its folder, and the service."""

import io
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from starlette.testclient import TestClient

from ptft.artifact import FolderFiles, RunFiles, read_json, read_model_info, write_json
from ptft.compare.metric import measure_metric
from ptft.data import open_split
from ptft.errors import ArtifactError
from ptft.evaluate import evaluate
from ptft.export import export_model
from ptft.model import (
    class_head,
    load_model,
    rows_for,
)
from ptft.recipe import (
    ClassifyEvaluation,
    ProbeEvaluation,
    Reads,
    TableData,
    ZeroShotEvaluation,
    deciding_values,
)
from ptft.train.batches import batches
from ptft.train.setup import set_up
from serving.routes import create_app
from serving.settings import Settings
from tests.serving.server import wait_until_ready
from tests.support.plain_step import compute_objective, to_device
from tests.support.runs import largest_difference, recipe, run
from tests.support.text_classes import (
    TEXT_KINDS,
    notes,
    picture,
    reviews,
)

ITEMS = [
    {"kind": "classify"},
    {"kind": "probe", "c": 1.0},
    {"kind": "zero_shot", "templates": ["a {} one."]},
]


def changes_of(folder: Path, reads: Reads, **more: Any) -> dict[str, Any]:
    data = reviews(folder / "data") if reads == "text" else notes(folder / "data")
    items = [item if item["kind"] == "classify" else {**item, "reads": reads} for item in ITEMS]
    objective = {"kind": "classify", "reads": reads, "templates": ["a {} one."]}
    return {"data": data, "objective": objective, "evaluate": items, **more}


@pytest.fixture(scope="module", params=TEXT_KINDS)
def trained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run and its model folder."""
    reads: Reads = request.param
    place = tmp_path_factory.mktemp(reads)
    changes = changes_of(place, reads, adapt={"kind": "lora", "head": True}, optim__lr=1e-2)
    assert run(place / "run", **changes, optim__samples_seen=480, optim__micro_batch=8).finished
    export_model(place / "run", place / "model", name=f"tiny-{reads}")
    return place


def test_it_learns_and_is_measured_on_what_it_reads(trained: Path) -> None:
    metrics = read_json(trained / "run" / RunFiles.METRICS)
    reads = load_model(trained / "run").spec.reads
    if reads == "text":
        assert metrics["classify"]["top1"] > 0.9  # 0.5 is chance
    assert metrics.keys() == {"classify", "probe", "zero_shot"}
    neighbours = read_json(trained / "run" / RunFiles.NEIGHBOURS)
    assert (neighbours["reason"] == "the objective reads no pictures") == (reads == "text")
    skipped = (trained / "run" / RunFiles.SKIPPED).read_text()
    assert ("train.csv/2" if reads == "text" else "train.parquet/0/5") in skipped


def test_evaluations_and_comparisons_are_the_models_own_answers(trained: Path) -> None:
    model = load_model(trained / "model")
    reads = model.spec.reads
    values = changes_of(trained, reads)
    data = TableData(**values["data"])
    samples = open_split(data, "val")
    rows = [samples.describe(index) for index in range(len(samples))]
    ids = torch.from_numpy(model.spec.tokenizer([captions[0] for captions, _ in rows]))
    images = None
    if reads == "both":
        prepared = [model.spec.preprocess(samples[i].image) for i in range(len(samples))]
        images = torch.from_numpy(np.stack(prepared))
    labels = torch.tensor([label for _, label in rows])
    with torch.no_grad():
        hits = model.classify(images, ids).argmax(1) == labels
        prompts = rows_for(class_head(model, samples.classes or [], ["a {} one."]), reads)
        inputs = model.head_input(*model(images, ids))
        nearest = (inputs @ prompts.T).argmax(1) == labels
    items = [ClassifyEvaluation(), ZeroShotEvaluation(reads=reads, templates=["a {} one."])]
    found = evaluate(model, items, data, seed=0, workers=0)
    assert found["classify"]["top1"] == pytest.approx(hits.double().mean().item())
    assert found["zero_shot"]["top1"] == pytest.approx(nearest.double().mean().item())
    for item, own in zip(items, (hits, nearest), strict=True):
        assert torch.equal(measure_metric(model, item, samples, "top1").hits, own)


def test_a_probe_starts_the_head(tmp_path: Path) -> None:
    changes = changes_of(tmp_path, "both")
    changes["objective"]["head"] = "probe"
    section = recipe(tmp_path / "run", **changes)
    model = set_up(section, torch.device("cpu")).model
    assert model.spec.reads == "both"
    items = [ClassifyEvaluation(), ProbeEvaluation(reads="both")]
    found = evaluate(model, items, section.data, seed=section.seed, workers=0)
    assert found["classify"]["top1"] == found["probe"]["top1"]


def test_kept_features_learn_the_same(tmp_path: Path) -> None:
    changes = changes_of(tmp_path, "both", adapt={"kind": "full", "lock": ["text", "image"]})
    changes |= {"augment": {"crop_scale": [1.0, 1.0]}, "evaluate": [], "run__neighbours": False}
    assert run(tmp_path / "plain", **changes, run__features="off").finished
    kept = {"run__features": "on", "run__cache": str(tmp_path / "kept")}
    assert run(tmp_path / "fast", **changes, **kept).finished
    record = read_json(tmp_path / "fast" / RunFiles.RUN)
    assert record["features"] == ["image", "text"]
    assert largest_difference(tmp_path / "plain", tmp_path / "fast") < 1e-5


def test_compute_objective_takes_what_is_read(tmp_path: Path) -> None:
    section = recipe(tmp_path, **changes_of(tmp_path, "text"))
    setup = set_up(section, torch.device("cpu"))
    batch = next(iter(batches(section, setup, start=0, end=8, size=8, workers=0)))
    inputs = to_device(batch, setup.model, section.objective)
    assert inputs.images is None
    output = compute_objective(section.objective, setup.model, inputs)
    logits = setup.model.classify(None, inputs.tokens)
    expected = F.cross_entropy(logits, inputs.labels)
    assert output.loss.item() == pytest.approx(expected.item(), abs=1e-6)


# --- the folder and the service ---------------------------------------------------------------


def test_digests_from_before_there_was_a_choice_stay(trained: Path, tmp_path: Path) -> None:
    info = read_model_info(trained / "model")
    assert info.reads == load_model(trained / "model").spec.reads
    values = {**asdict(info), "reads": "image"}
    plain = type(info)(**values)
    assert plain.digest != info.digest
    del values["reads"]
    (tmp_path / "old").mkdir()
    write_json(tmp_path / "old" / FolderFiles.INFO, {**values, "digest": plain.digest})
    assert read_model_info(tmp_path / "old").reads == "image"
    write_json(tmp_path / "old" / FolderFiles.INFO, {**values, "reads": "sound", "digest": ""})
    with pytest.raises(ArtifactError, match="reads: 'sound'; allowed: image, text, both"):
        read_model_info(tmp_path / "old")
    given = deciding_values(recipe(tmp_path, objective={"kind": "classify"}))
    assert "reads" not in given["objective"]
    other = deciding_values(recipe(tmp_path, objective={"kind": "classify", "reads": "both"}))
    assert other["objective"]["reads"] == "both"


@contextmanager
def serving(folder: Path) -> Iterator[TestClient]:
    with TestClient(create_app(lambda: Settings(model=folder, threads=1))) as client:
        wait_until_ready(client)
        yield client


def test_the_service_answers_as_torch_does(trained: Path) -> None:
    folder, model = trained / "model", load_model(trained / "model")
    reads, texts = model.spec.reads, ["a fine film", "it never ends", "great acting"]
    encoded = [picture(10), picture(90), picture(190)]
    ids = torch.from_numpy(model.spec.tokenizer(texts))
    prepared = np.stack([model.spec.preprocess(Image.open(io.BytesIO(one))) for one in encoded])
    images = torch.from_numpy(prepared) if reads == "both" else None
    with torch.no_grad():
        expected = model.classify(images, ids).softmax(1).numpy()
        prompts = rows_for(class_head(model, ["x", "y"], ["{}!"]), reads)
        scale = model.logit_scale.exp()
        zero_shot = (scale * model.head_input(*model(images, ids)) @ prompts.T).softmax(1).numpy()
    files = [("images", one) for one in encoded] if reads == "both" else None
    with serving(folder) as ask:
        assert ask.get("/v1/model").json()["reads"] == reads
        if files is None:
            answer = ask.post("/v1/classify", json={"texts": texts})
            own = ask.post(
                "/v1/classify", json={"texts": texts, "labels": ["x", "y"], "templates": ["{}!"]}
            )
        else:
            answer = ask.post("/v1/classify", files=files, data={"texts": texts})
            form = {"texts": texts, "labels": ["x", "y"], "templates": ["{}!"]}
            own = ask.post("/v1/classify", files=files, data=form)
    for given, names, wanted in (
        (answer, list(model.spec.classes), expected),
        (own, ["x", "y"], zero_shot),
    ):
        assert given.status_code == 200, given.text
        for row, result in enumerate(given.json()["results"]):
            told = {one["label"]: one["probability"] for one in result["classes"]}
            assert [told[name] for name in names] == pytest.approx(wanted[row], abs=1e-4)


def test_bad_requests_are_told_what_the_model_reads(trained: Path) -> None:
    reads = read_model_info(trained / "model").reads
    pair = [("images", picture(10)), ("images", picture(90))]
    with serving(trained / "model") as ask:

        def refused(**request: Any) -> tuple[int, str, str]:
            answer = ask.post("/v1/classify", **request)
            error = answer.json()["error"]
            return answer.status_code, error["type"], error["message"]

        if reads == "text":
            message = "texts: missing; tiny-text classifies texts"
            assert refused(json={}) == (422, "no_texts", message)
            status, _, message = refused(files=pair, data={"texts": ["a", "b"]})
            assert (status, message) == (
                422,
                "images: tiny-text classifies texts alone; leave it out",
            )
            assert refused(json={"texts": []})[0] == 422
            return
        assert refused(files=pair)[:2] == (422, "no_texts")
        assert refused(json={"texts": ["a"]})[:2] == (422, "no_images")
        assert refused(files=pair, data={"texts": ["a"]}) == (
            422,
            "unpaired",
            "2 images and 1 texts; allowed: one an image",
        )
        broken = [("images", b"no picture"), ("images", picture(90))]
        answer = ask.post("/v1/classify", files=broken, data={"texts": ["a", "b"]})
        alone = ask.post("/v1/classify", files=pair[1:], data={"texts": ["b"]})
    assert answer.status_code == 200
    first, second = answer.json()["results"]
    assert first["error"]["type"] == "unreadable"
    assert second["classes"] == alone.json()["results"][0]["classes"]


def test_the_cards_classifier_runs_as_it_stands(trained: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(trained / "model", tmp_path / "model"))
    info, model = read_model_info(folder), load_model(folder)
    (folder / "picture.jpg").write_bytes(picture(80))
    card = (folder / FolderFiles.CARD).read_text()
    assert {"text": "a classifier of texts", "both": "images with their texts"}[info.reads] in card
    code = re.findall(r"```python\n(.*?)```", card, re.S)
    onnx = next(part for part in code if "InferenceSession" in part)
    head = next(part for part in code if "head.safetensors" in part)
    prelude = "from ptft.compat import prepare_torchvision; prepare_torchvision()\n"
    done = subprocess.run(
        [sys.executable, "-c", prelude + onnx + head], cwd=folder, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    text = f"a {info.classes[0]} one."  # the first of the card's texts
    pixels = model.spec.preprocess(Image.open(io.BytesIO(picture(80))))
    with torch.no_grad():
        logits = model.classify(
            torch.from_numpy(pixels)[None] if info.reads == "both" else None,
            torch.from_numpy(model.spec.tokenizer([text])),
        )
    assert text in onnx
    assert done.stdout.splitlines()[-1] == info.classes[int(logits.argmax())]
