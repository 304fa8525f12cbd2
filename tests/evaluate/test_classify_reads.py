"""Classifiers of texts, and of pictures with their texts: trained, evaluated, exported, served."""

import io
import math
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
import pyarrow
import pyarrow.parquet
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from starlette.testclient import TestClient

from ptft.artifact import FolderFiles, RunFiles, read_json, read_model_info, write_json
from ptft.compare.metric import measure_metric
from ptft.data import eval_batches, open_split
from ptft.distributed import ALONE
from ptft.errors import AdaptError, ArtifactError, RecipeError, SampleError
from ptft.evaluate import evaluate
from ptft.export import export_model
from ptft.model import (
    DualEncoder,
    apply_adapt,
    build_model,
    class_head,
    init_head,
    load_model,
    rows_for,
    save_model,
)
from ptft.model.average import interpolate
from ptft.recipe import (
    ClassifyEvaluation,
    ClassifyObjective,
    LoraAdapt,
    ProbeEvaluation,
    Reads,
    TableData,
    ZeroShotEvaluation,
    deciding_values,
)
from ptft.train.batches import batches
from ptft.train.gradients import Step
from ptft.train.parallel import share
from ptft.train.setup import set_up
from ptft.train.teacher import load_teacher
from serving.routes import create_app
from serving.settings import Settings
from tests.serving.server import wait_until_ready
from tests.support import steps
from tests.support.plain_step import compute_objective, to_device
from tests.support.runs import largest_difference, recipe, run
from tests.support.tiny import arch_section, build, pictures, tokens

TEXT_KINDS: tuple[Reads, ...] = ("text", "both")
CLASSES = ["cat", "dog", "sea"]
GOOD = ("a fine film", "a warm and funny story", "great acting", "I would see it again")
BAD = ("a dull film", "it never ends", "poor acting and a worse plot", "I left early")


def head_of(reads: Reads, arch: str = "tiny-vit", **section: Any) -> DualEncoder:
    model = build(arch_section(arch))
    init_head(model, CLASSES, ClassifyObjective(reads=reads, **section), seed=0)
    return model


def reviews(folder: Path, suffix: str = ".csv", *, rows: int = 48) -> dict[str, Any]:
    """A data section of texts with labels and no picture; one row of ``train`` has no text."""
    folder.mkdir(exist_ok=True)
    for split in ("train", "val"):
        lines = ["text,label"]
        for index in range(rows):
            good = index % 2 == 0
            text = (GOOD if good else BAD)[index // 2 % 4]
            lines.append(f"{text} {index if split == 'train' else -index},{'good' if good else ''}")
            lines[-1] += "" if good else "bad"
        if split == "train":
            lines[3] = ",good"
        (folder / f"{split}{suffix}").write_text("\n".join(lines) + "\n")
    paths = {split: str(folder / f"{split}{suffix}") for split in ("train", "val")}
    return {"kind": "table", "image": None, "label": "label", "max_skipped": 1.0, **paths}


def picture(shade: int) -> bytes:
    stream = io.BytesIO()
    noise = np.random.default_rng(shade).integers(0, 60, (32, 32, 3), np.uint8)
    Image.fromarray(noise + np.uint8(shade)).save(stream, "PNG")
    return stream.getvalue()


def notes(folder: Path, rows: int = 32) -> dict[str, Any]:
    """A data section of pictures with texts, whose label takes both: equal bits are alike.

    One row of ``train`` has no picture, one has no text.
    """
    folder.mkdir(exist_ok=True)
    for split in ("train", "val"):
        made = []
        for index in range(rows):
            light, good = index % 2, index // 2 % 2
            text = f"{(GOOD if good else BAD)[index // 4 % 4]} {split} {index}"
            label = "alike" if light == good else "other"
            made.append({"image": picture(150 * light), "text": text, "label": label})
        if split == "train":
            made[5]["image"] = None
            made[9]["text"] = None
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(made), folder / f"{split}.parquet")
    paths = {split: str(folder / f"{split}.parquet") for split in ("train", "val")}
    return {"kind": "table", "label": "label", "max_skipped": 1.0, **paths}


# --- the head ---------------------------------------------------------------------------------


@pytest.mark.parametrize("reads", ["image", *TEXT_KINDS])
def test_logits_are_those_of_a_loop_by_hand(reads: Reads) -> None:
    model = head_of(reads)
    images, ids = pictures(model), tokens(model)
    with torch.no_grad():
        found = model.classify(images, ids)
        image, text = (F.normalize(x, dim=-1) for x in model(images, ids))
        assert model.head is not None
        model.head.bias.copy_(torch.tensor([0.5, -1.0, 2.0]))
        biased = model.classify(images, ids)
    rows = class_head(model, CLASSES, ["a photo of a {}."])
    scale = math.exp(model.logit_scale.item())
    for sample in range(3):
        for number in range(3):
            score = 0.0
            for d in range(model.spec.embed_dim):  # prompts start it as zero-shot, or its mean
                row = float(rows[number, d])
                a, b = float(image[sample, d]) * row, float(text[sample, d]) * row
                score += {"image": a, "text": b, "both": (a + b) / 2}[reads]
            assert found[sample, number].item() == pytest.approx(scale * score, abs=1e-5)
            shift = (0.5, -1.0, 2.0)[number]
            assert biased[sample, number].item() == pytest.approx(scale * score + shift, abs=1e-5)


def test_a_head_refuses_the_lack_of_what_it_reads() -> None:
    from ptft.errors import ModelError

    model = head_of("both")
    with pytest.raises(ModelError, match="reads 'both' needs text embeddings"):
        model.classify(pictures(model))
    with pytest.raises(ModelError, match="reads 'text' needs text embeddings"):
        head_of("text").classify(pictures(model))


@pytest.mark.parametrize("reads", TEXT_KINDS)
def test_a_stored_head_reads_the_same_again(reads: Reads, tmp_path: Path) -> None:
    model = head_of(reads)
    save_model(model, tmp_path)
    again = load_model(tmp_path)
    assert again.spec.reads == reads
    images, ids = pictures(model), tokens(model)
    assert torch.equal(again.classify(images, ids), model.classify(images, ids))
    # the head stays for the same classes, and only where it reads the same
    assert again.head is not None
    kept = again.head.weight
    init_head(again, CLASSES, ClassifyObjective(reads=reads, head="random"), seed=5)
    assert again.head.weight is kept
    init_head(again, CLASSES, ClassifyObjective(reads="image"), seed=5)
    assert again.head.weight is not kept
    values = read_json(tmp_path / "model.json")
    del values["reads"]  # as it was before there was a choice
    write_json(tmp_path / "model.json", {**values, "classes": []})
    with pytest.raises(Exception, match="3 rows"):
        load_model(tmp_path)


def test_mixing_takes_the_trained_head_where_another_reads_something_else() -> None:
    start, trained = head_of("image"), head_of("text")
    mixed = interpolate(start, trained, 0.5)
    assert mixed.head is not None and trained.head is not None
    assert torch.equal(mixed.head.weight, trained.head.weight)


# --- gradients --------------------------------------------------------------------------------


def loss_by_hand(model: DualEncoder, data: Any, reads: Reads) -> torch.Tensor:
    """Mean cross-entropy, sample by sample, of logits written out."""
    assert model.head is not None
    total = torch.zeros((), dtype=torch.float64)
    images = model.normalise(data.images)
    for row, label in enumerate(data.labels.tolist()):
        image, text = model(images[row : row + 1], data.tokens[row : row + 1])
        read = {"image": [image], "text": [text], "both": [image, text]}[reads]
        f = torch.cat([part / part.norm() for part in read], dim=1)[0]
        logits = model.logit_scale.exp() * (model.head.weight * f).sum(1) + model.head.bias
        total = total - (logits[label] - logits.exp().sum().log())
    return total / len(data.labels)


@pytest.mark.parametrize("reads", TEXT_KINDS)
@pytest.mark.parametrize("micro", [None, 4])
def test_gradients_are_those_of_a_loop_by_hand(reads: Reads, micro: int | None) -> None:
    objective = {"kind": "classify", "reads": reads}
    section = steps.recipe(objective=objective, optim__micro_batch=micro)
    model = steps.learner(section)
    data = steps.batch(model)
    step = Step(section.objective, section.optim, share(model, ALONE))
    output = step(data)
    found = steps.gradients(model)
    model.zero_grad(set_to_none=True)
    expected = loss_by_hand(model, data, reads)
    expected.backward()
    wanted = steps.gradients(model)
    assert output.loss.item() == pytest.approx(expected.item(), abs=1e-12)
    assert found.keys() == wanted.keys()
    assert any(name.startswith("text.") for name in found)
    assert any(name.startswith("image.") for name in found) == (reads == "both")
    assert max((found[name] - wanted[name]).abs().max().item() for name in found) < 1e-12


@pytest.mark.parametrize("reads", TEXT_KINDS)
def test_a_teacher_is_asked_what_the_student_reads(reads: Reads, tmp_path: Path) -> None:
    teacher = build_model(arch_section(), None, ClassifyObjective(), seed=9)
    init_head(teacher, CLASSES, ClassifyObjective(reads=reads, head="random"), seed=9)
    save_model(teacher, tmp_path)
    section = steps.recipe(
        objective={"kind": "classify", "reads": reads},
        distill={"from": str(tmp_path), "weight": 2.0},
        optim__micro_batch=4,
    )
    model = steps.learner(section, double=False)
    data = steps.batch(model)
    asked = load_teacher(section, model)
    step = Step(section.objective, section.optim, share(model, ALONE), teacher=asked)
    found = step(data).scalars["distill_loss"]
    images = model.normalise(data.images)
    with torch.no_grad():
        taught = teacher.eval().classify(images, data.tokens).log_softmax(1)
        own = model.eval().classify(images, data.tokens).log_softmax(1)
    expected = (taught.exp() * (taught - own)).sum(1).mean().item()
    assert expected > 0.1
    assert found == pytest.approx(expected, abs=1e-4)


# --- what learns ------------------------------------------------------------------------------


def test_a_tower_that_is_not_read_does_not_learn() -> None:
    section = steps.recipe(objective={"kind": "classify", "reads": "text"})
    model = steps.learner(section)
    assert model.locked == {"image"}
    assert not any(p.requires_grad for p in model.image.parameters())
    assert all(p.requires_grad for p in model.text.parameters())
    both = steps.learner(steps.recipe(objective={"kind": "classify", "reads": "both"}))
    assert not both.locked


def test_an_adapter_goes_into_the_tower_that_is_read() -> None:
    model = head_of("text")
    objective = ClassifyObjective(reads="text")
    said = apply_adapt(model, LoraAdapt(), objective, seed=0)
    assert said.startswith("lora in text tower, head")
    learning = {name for name, p in model.named_parameters() if p.requires_grad}
    assert learning and not any(name.startswith("image.") for name in learning)
    assert any(name.startswith("text.") for name in learning)
    assert model.locked == {"image"}
    with pytest.raises(AdaptError, match="reads texts alone; allowed: a list with text"):
        apply_adapt(head_of("text"), LoraAdapt(towers=["image"]), objective, seed=0)
    with pytest.raises(AdaptError, match="reads images alone"):
        apply_adapt(head_of("image"), LoraAdapt(towers=["text"]), ClassifyObjective(), seed=0)


# --- data -------------------------------------------------------------------------------------


def test_texts_and_labels_without_pictures(tmp_path: Path) -> None:
    samples = open_split(TableData(**reviews(tmp_path)), "train")
    assert samples.classes == ["bad", "good"]
    assert samples.describe(0) == (("a fine film 0",), 1)
    with pytest.raises(SampleError, match=r"train.csv/3: it has no picture \(data.image: null\)"):
        samples[3]
    (tmp_path / "x.jsonl").write_text('{"text": "a", "label": 1}\n{"text": "b", "label": 0}\n')
    lines = open_split(
        TableData(train=str(tmp_path / "x.jsonl"), image=None, label="label"), "train"
    )
    assert [lines.describe(index) for index in range(2)] == [(("a",), 1), (("b",), 0)]


def test_what_a_plain_file_does_not_hold(tmp_path: Path) -> None:
    section = reviews(tmp_path)
    with pytest.raises(RecipeError, match=r"data.image: 'image' with train.csv.*allowed: null"):
        open_split(TableData(**{**section, "image": "image"}), "train")
    other = str(tmp_path / "x.parquet")
    Path(other).write_bytes(b"")
    with pytest.raises(RecipeError, match="allowed: files of one kind"):
        open_split(TableData(**{**section, "train": [section["train"], other]}), "train")


def test_a_recipe_that_reads_pictures_needs_them(tmp_path: Path) -> None:
    data = reviews(tmp_path)
    text = {"kind": "classify", "reads": "text"}
    for changes, message in (
        ({"objective": {"kind": "classify"}}, "data.image: null with objective.kind 'classify'"),
        ({"objective": {"kind": "clip"}}, "data.image: null with objective.kind 'clip'"),
        (
            {"objective": text, "evaluate": [{"kind": "zero_shot"}]},
            r"data.image: null, and evaluate.0 \(zero_shot\) reads pictures",
        ),
        ({"objective": text, "augment": {"patch_dropout": 0.5}}, "reads no picture"),
    ):
        with pytest.raises(RecipeError, match=message):
            recipe(tmp_path / "run", data=data, **changes)


@pytest.mark.parametrize(("reads", "lacking"), [("text", [9]), ("both", [5, 9]), ("image", [5])])
def test_a_sample_without_what_is_read_is_named(
    reads: Reads, lacking: list[int], tmp_path: Path
) -> None:
    data = notes(tmp_path / "notes")
    reasons = {5: "it has no picture: image is null", 9: "it has no caption"}
    section = recipe(tmp_path, data=data, objective={"kind": "classify", "reads": reads})
    setup = set_up(section, torch.device("cpu"))
    read = list(batches(section, setup, start=0, end=32, size=16, workers=0))
    found = {skip.name: (skip.fault, skip.reason) for batch in read for skip in batch.skipped}
    assert found == {f"train.parquet/0/{row}": ("empty", reasons[row]) for row in lacking}
    assert all((batch.images is None) == (reads == "text") for batch in read)
    assert all((batch.tokens is None) == (reads == "image") for batch in read)
    samples, preprocess = setup.samples, setup.model.spec.preprocess
    once = eval_batches(samples, preprocess=preprocess, batch=32, workers=0, reads=reads)
    assert {s.name: (s.fault, s.reason) for part in once for s in part.skipped} == found


# --- a run ------------------------------------------------------------------------------------

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
