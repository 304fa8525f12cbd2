"""Distillation: its losses against open_clip's and by hand, in a step, over ranks, and in a run."""

import json
import math
import multiprocessing
import socket
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from ptft import distill
from ptft.artifact import RunFiles
from ptft.compat import import_open_clip
from ptft.data import Batch
from ptft.distill import class_distillation, contrast_distillation, feature_distance
from ptft.distributed import ALONE
from ptft.errors import ModelError
from ptft.model import DualEncoder, save_model
from ptft.recipe import Recipe
from ptft.train.gradients import Step
from ptft.train.parallel import share
from ptft.train.teacher import Teacher, load_teacher
from tests.support import steps
from tests.support.distill_ranks import PAIRS, answer, gradients, made
from tests.support.runs import BATCH, interrupt, largest_difference, recipe, run
from tests.support.tiny import arch_section, build, hf_section, hf_text_folder, towers_section


def test_the_contrastive_loss_is_open_clips() -> None:
    open_clip = import_open_clip()
    student, teacher = made(1), made(2, width=9)
    ours = contrast_distillation(student, teacher)
    given = [student.image_bd, student.text_bd, student.scale]
    _, theirs = open_clip.loss.DistillClipLoss()(
        *given, teacher.image_bd, teacher.text_bd, teacher.scale
    )
    assert abs(ours.item() - theirs.item()) <= 1e-12
    for a, b in zip(gradients(ours, student), torch.autograd.grad(theirs, given), strict=True):
        assert (a - b).abs().max().item() <= 1e-12


def test_tiles_and_temperature_change_nothing_but_what_they_say(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    student, teacher = made(1), made(2)
    whole = contrast_distillation(student, teacher, temperature=2.0)
    by_whole = gradients(whole, student)
    logits = [p.scale * p.image_bd @ p.text_bd.T / 2.0 for p in (student, teacher)]
    expected = 0.0
    for ours, theirs in (logits, [one.T for one in logits]):
        for row in range(PAIRS):
            target = torch.exp(theirs[row] - torch.logsumexp(theirs[row], 0))
            expected -= (target * (ours[row] - torch.logsumexp(ours[row], 0))).sum().item()
    assert whole.item() == pytest.approx(4.0 * expected / (2 * PAIRS), abs=1e-12)
    monkeypatch.setattr(distill, "TILE", 12 * PAIRS)  # three rows at a time
    tiled = contrast_distillation(student, teacher, temperature=2.0)
    assert abs(tiled.item() - whole.item()) <= 1e-12
    for a, b in zip(gradients(tiled, student), by_whole, strict=True):
        assert (a - b).abs().max().item() <= 1e-12


def test_the_class_loss_by_hand() -> None:
    generator = torch.Generator().manual_seed(0)
    ours, theirs = (torch.randn(3, 4, generator=generator, dtype=torch.float64) for _ in range(2))
    expected = 0.0
    for row in range(3):
        p = [math.exp(x / 3.0) for x in theirs[row].tolist()]
        q = [math.exp(x / 3.0) for x in ours[row].tolist()]
        expected += sum(
            a / sum(p) * math.log((a / sum(p)) / (b / sum(q))) for a, b in zip(p, q, strict=True)
        )
    found = class_distillation(ours, theirs, temperature=3.0).item()
    assert found == pytest.approx(9.0 * expected / 3, abs=1e-12)
    assert class_distillation(ours, ours).item() == pytest.approx(0.0, abs=1e-12)


def test_the_distance_of_features_is_that_of_their_angle() -> None:
    student, teacher = made(1), made(2)
    cosines = [
        F.cosine_similarity(getattr(student, side), getattr(teacher, side)).mean().item()
        for side in ("image_bd", "text_bd")
    ]
    expected = 2 - sum(cosines)
    assert feature_distance(student, teacher).item() == pytest.approx(expected, abs=1e-12)


# --- over ranks -----------------------------------------------------------------------------------


def test_two_ranks_are_one_process() -> None:
    context = multiprocessing.get_context("spawn")
    answers = context.Queue()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    ranks = [context.Process(target=answer, args=(rank, port, answers)) for rank in range(2)]
    for process in ranks:
        process.start()
    found = sorted(answers.get(timeout=300) for _ in ranks)
    for process in ranks:
        process.join()
    student, teacher = made(1), made(2)
    loss = contrast_distillation(student, teacher) + feature_distance(student, teacher)
    image, text, scale = gradients(loss, student)
    for _, value, _ in found:
        assert value == pytest.approx(loss.item(), abs=1e-12)
    parts = [[torch.tensor(g, dtype=torch.float64) for g in one] for _, _, one in found]
    for whole, number in ((image, 0), (text, 1)):
        assert (torch.cat([p[number] for p in parts]) - whole).abs().max().item() <= 1e-12
    assert (parts[0][2] + parts[1][2] - scale).abs().max().item() <= 1e-12


# --- in a step ------------------------------------------------------------------------------------


def stepped(section: Recipe, teacher: Teacher | None, batch: Batch | None = None) -> DualEncoder:
    """A model with the gradients of one step, in float64."""
    model = steps.learner(section)
    step = Step(section.objective, section.optim, share(model, ALONE), teacher=teacher)
    step(batch or steps.batch(model))
    return model


@pytest.fixture(scope="module")
def teacher_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("teacher")
    save_model(build(arch_section("tiny-vit"), seed=9), folder)
    return folder


@pytest.mark.parametrize("kind", ["clip", "siglip", "classify"])
def test_micro_batches_have_the_whole_batchs_gradients(teacher_folder: Path, kind: str) -> None:
    changes: dict[str, Any] = {
        "objective__kind": kind,
        "distill": {"from": str(teacher_folder), "weight": 0.7},
    }
    if kind != "classify":
        changes["distill"]["features"] = 0.3
    whole = steps.recipe(**changes)
    student = steps.learner(whole)
    teacher = load_teacher(whole, student)
    steps.widen(teacher.model)
    one = steps.gradients(stepped(whole, teacher))
    cut = steps.gradients(stepped(steps.recipe(**changes, optim__micro_batch=4), teacher))
    assert steps.largest_gap(one, cut) <= 1e-12
    plain = steps.gradients(stepped(steps.recipe(objective__kind=kind), None))
    assert steps.largest_gap(one, plain) > 1e-6


def test_a_teacher_is_left_alone(teacher_folder: Path) -> None:
    section = steps.recipe(distill={"from": str(teacher_folder)})
    teacher = load_teacher(section, steps.learner(section, double=False))
    assert not teacher.model.training
    assert teacher.tokenizer is None, "the student's tokens are its own"
    assert not any(parameter.requires_grad for parameter in teacher.model.parameters())


def test_a_teachers_own_head_is_put_in_the_students_order(tmp_path: Path) -> None:
    model = build(arch_section("tiny-vit"), seed=9)
    rows = torch.randn(3, 24, generator=torch.Generator().manual_seed(3))
    model.set_head(rows, ["dog", "sea", "cat"], ["{}"])
    save_model(model, tmp_path)
    section = steps.recipe(objective__kind="classify", distill={"from": str(tmp_path)})
    student = steps.learner(section, double=False)
    teacher = load_teacher(section, student)
    assert student.spec.classes == ("cat", "dog", "sea")
    assert teacher.order is not None
    assert teacher.order.tolist() == [2, 0, 1]
    assert torch.equal(teacher.model.head.weight, rows)


def test_teachers_that_do_not_fit_are_refused(teacher_folder: Path, tmp_path: Path) -> None:
    save_model(build(towers_section(image="test_vit", image_size=64)), tmp_path / "large")
    save_model(build(arch_section("tiny-siglip", image_size=32)), tmp_path / "wide")
    for name, features, expected in (
        ("large", 0.0, "takes pictures of 64x64 pixels, the student of 32x32 pixels"),
        ("wide", 1.0, "distill.features: 1.0: the teacher's embeddings have 32 numbers, the stu"),
    ):
        section = steps.recipe(distill={"from": str(tmp_path / name), "features": features})
        with pytest.raises(ModelError, match=expected):
            load_teacher(section, steps.learner(section, double=False))


# --- in a run -------------------------------------------------------------------------------------


def test_a_run_with_a_teacher_of_another_tokenizer_resumes_exactly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    teacher = build(hf_section(hf_text_folder(tmp_path / "text")), seed=4)
    save_model(teacher, tmp_path / "teacher")
    changes: dict[str, Any] = {
        "optim__samples_seen": 4 * BATCH,
        "distill": {"from": str(tmp_path / "teacher"), "weight": 2.0, "temperature": 2.0},
    }
    run(tmp_path / "whole", **changes)
    interrupt(monkeypatch, tmp_path / "cut", 2, **changes)
    run(tmp_path / "cut", resume=True, run__workers=1, **changes)
    assert largest_difference(tmp_path / "whole", tmp_path / "cut") == 0.0
    lines = (tmp_path / "whole" / RunFiles.LOG).read_text().splitlines()
    for line in map(json.loads, lines):
        assert line["loss"] == pytest.approx(line["objective_loss"] + 2.0 * line["distill_loss"])


def test_the_teacher_reads_the_captions_with_its_own_tokenizer(tmp_path: Path) -> None:
    from ptft.train.batches import batches
    from ptft.train.setup import set_up

    teacher = build(hf_section(hf_text_folder(tmp_path / "text")), seed=4)
    save_model(teacher, tmp_path / "teacher")
    section = recipe(tmp_path / "run", distill={"from": str(tmp_path / "teacher")})
    setup = set_up(section, torch.device("cpu"))
    assert setup.teacher is not None
    with_teacher = next(batches(section, setup, start=0, end=4, size=4, workers=0))
    plain = recipe(tmp_path / "run")
    alone = next(
        batches(plain, set_up(plain, torch.device("cpu")), start=0, end=4, size=4, workers=0)
    )
    assert with_teacher.tokens is not None
    assert alone.tokens is not None
    assert torch.equal(with_teacher.tokens, alone.tokens)
    assert with_teacher.teacher_tokens is not None
    captions = [setup.samples[index].captions for index in range(len(setup.samples))]
    known = {
        tuple(row.tolist())
        for texts in captions
        for row in torch.from_numpy(teacher.spec.tokenizer(list(texts)))
    }
    assert {tuple(row.tolist()) for row in with_teacher.teacher_tokens} <= known
