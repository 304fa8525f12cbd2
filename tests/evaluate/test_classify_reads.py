"""A classifier of texts, or of texts with pictures: its head, gradients, what learns, data."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from ptft.artifact import read_json, write_json
from ptft.data import eval_batches, open_split
from ptft.distributed import ALONE
from ptft.errors import AdaptError, RecipeError, SampleError
from ptft.model import (
    DualEncoder,
    apply_adapt,
    build_model,
    class_head,
    init_head,
    load_model,
    save_model,
)
from ptft.model.average import interpolate
from ptft.recipe import (
    ClassifyObjective,
    LoraAdapt,
    Reads,
    TableData,
)
from ptft.train.batches import batches
from ptft.train.gradients import Step
from ptft.train.parallel import share
from ptft.train.setup import set_up
from ptft.train.teacher import load_teacher
from tests.support import steps
from tests.support.runs import recipe
from tests.support.text_classes import CLASSES, TEXT_KINDS, head_of, notes, reviews
from tests.support.tiny import arch_section, pictures, tokens

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
