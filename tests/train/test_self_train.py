"""Pictures without labels: which of a teacher's answers are kept, and a run that learns from
them."""

import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from ptft.artifact import RunFiles
from ptft.data import open_split
from ptft.data.sources.pseudo_labels import surest
from ptft.errors import DataError, ModelError
from ptft.recipe import Recipe, ShardsData, deciding_values, dump_recipe
from ptft.recipe.load import parse_recipe
from ptft.sequence import run_recipe
from ptft.speech import SILENT
from ptft.train.self_training import with_pseudo_labels
from tests.support.killed import warm
from tests.support.recipe_values import problems, values
from tests.support.runs import largest_difference
from tests.support.shards import write_tar
from tests.support.warm import Warm, logged_steps

__all__ = ["warm"]  # the fixture


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Red and green pictures: two of each with a label, twelve without, in folders that lie."""
    made = tmp_path_factory.mktemp("colours")
    rng = np.random.default_rng(0)
    for split, names, count in (("train", ("red", "green"), 2), ("more", ("x", "y"), 6)):
        for channel, name in enumerate(names):
            (made / split / name).mkdir(parents=True)
            for number in range(count):
                pixels = rng.integers(0, 100, (32, 32, 3), np.uint8)
                pixels[..., number % 2 if split == "more" else channel] += 150
                Image.fromarray(pixels).save(made / split / name / f"{number}.png")
    run_recipe(taught(made, "teacher", teacher=None), log=SILENT)
    run_recipe(taught(made, "other", teacher=None, seed=1), log=SILENT)
    return made


RUN = {"workers": 0, "trackers": [], "page": False}


def taught(folder: Path, name: str, *, teacher: str | None, **changes: Any) -> Recipe:
    data: dict[str, Any] = {"kind": "folder", "train": str(folder / "train")}
    if teacher is not None:
        changes["self_train"] = {"from": str(folder / teacher), "keep": 0.5, "share": 0.75}
        data["unlabelled"] = {"kind": "folder", "train": str(folder / "more")}
    text = {"width": 32, "layers": 1, "heads": 2, "context_length": 16}
    return parse_recipe(
        {
            "name": name,
            "model": {"image": "test_vit", "image_size": 32, "text": text, "embed_dim": 16},
            "data": data,
            "objective": {"kind": "classify", "head": "random"},
            "optim": {"samples_seen": 64, "global_batch": 8, "lr": 3e-3, "precision": "fp32"},
            "run": RUN | {"dir": str(folder / name)},
            **changes,
        },
        where="test",
    )


def test_each_class_has_a_threshold_of_its_own() -> None:
    said = np.array([0, 0, 0, 1, 1, 0, 2])
    sure = np.array([0.9, 0.8, 0.7, 0.2, 0.3, 0.8, 0.1])
    assert surest(said, sure, 0.5).tolist() == [0, 1, 4, 6]  # of equals the first; rounded up
    assert surest(said, sure, 1.0).tolist() == list(range(7))
    assert surest(said[:0], sure[:0], 0.5).tolist() == []


def test_the_teacher_labels_what_it_is_surest_of(folder: Path) -> None:
    recipe = taught(folder, "student", teacher="teacher")
    labelled = open_split(recipe.data, "train", seed=0)
    mixture, notes = with_pseudo_labels(recipe, labelled, torch.device("cpu"))
    names = [mixture.name(number) for number in range(len(mixture))]
    pseudo = [number for number, name in enumerate(names) if name.startswith("unlabelled/")]
    assert len(mixture) - len(pseudo) == 4 and len(pseudo) == 6  # half of twelve
    classes = mixture.classes or []
    said = [classes[mixture[number].label or 0] for number in pseudo]
    shown = [np.asarray(mixture[number].image)[..., :2].mean((0, 1)).argmax() for number in pseudo]
    assert said == [("red", "green")[one] for one in shown]  # whatever folder they lie in
    assert all(mixture[number].captions == () for number in pseudo)
    assert "6 of 12 unlabelled pictures" in notes[0]
    whole = mixture.order(0)
    drawn = [names[whole[position]] for position in range(4096)]
    assert sum(name.startswith("unlabelled/") for name in drawn) == 3072


def test_unlabelled_pictures_need_no_caption(folder: Path, tmp_path: Path) -> None:
    pictures = {f"{path.parent.name}{path.name}": path for path in folder.glob("more/*/*.png")}
    made = write_tar(tmp_path / "more.tar", {k: v.read_bytes() for k, v in pictures.items()})
    recipe = taught(folder, "student", teacher="teacher")
    unlabelled = ShardsData(train=str(made))
    data = recipe.data.model_copy(update={"unlabelled": unlabelled})
    recipe = recipe.model_copy(update={"data": data})
    labelled = open_split(recipe.data, "train", seed=0)
    _, notes = with_pseudo_labels(recipe, labelled, torch.device("cpu"))
    assert "6 of 12 unlabelled pictures" in notes[0] and "could not be read" not in notes[0]


def test_a_student_is_the_same_each_time_and_learns_from_more(folder: Path) -> None:
    for name in ("student", "again"):
        run_recipe(taught(folder, name, teacher="teacher"), log=SILENT)
    assert largest_difference(folder / "student", folder / "again") == 0.0
    assert largest_difference(folder / "student", folder / "teacher") > 0.0


def test_a_student_that_is_killed_at_any_point_ends_as_one_that_was_not(
    warm: Warm, folder: Path, tmp_path: Path
) -> None:
    """Before its first step too, where the teacher labels: each life has the same labels."""
    run = RUN | {"checkpoint_every": 5, "log_every": 1}
    long = {"samples_seen": 320, "global_batch": 8, "lr": 3e-3, "precision": "fp32"}
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    for place in (whole, killed):
        made = taught(
            folder, "student", teacher="teacher", optim=long, run=run | {"dir": str(place)}
        )
        place.with_suffix(".yaml").write_text(dump_recipe(made))
    assert warm.ptft("train", whole.with_suffix(".yaml")).wait() == 0
    log = killed / RunFiles.LOG

    def reached(step: int) -> Callable[[], bool]:
        return lambda: any(one >= step for one in logged_steps(log))

    moments = [(killed / RunFiles.RECIPE).is_file, *(reached(step) for step in (1, 8, 19))]
    for moment in moments:
        child = warm.ptft("train", killed.with_suffix(".yaml"), "--resume", "auto")
        assert child.wait_until(moment), child.err.read_text()
        child.kill()
        assert child.wait() in (0, -signal.SIGKILL)  # 0: it was at its end
    last = warm.ptft("train", killed.with_suffix(".yaml"), "--resume", "auto")
    assert last.wait() == 0, last.err.read_text()
    assert largest_difference(whole, killed) == 0.0
    assert list(logged_steps(log)) == list(range(1, 41))


def test_a_teacher_that_changed_since_is_refused(folder: Path, tmp_path: Path) -> None:
    """Its labels would be others than those of the first part."""
    teacher = tmp_path / "teacher"
    shutil.copytree(folder / "teacher", teacher)
    run = RUN | {"dir": str(tmp_path / "run")}
    short = taught(folder, "student", teacher=str(teacher), run=run | {"max_minutes": 1e-9})
    assert run_recipe(short, log=SILENT).out_of_time  # after a step
    shutil.rmtree(teacher)
    shutil.copytree(folder / "other", teacher)
    with pytest.raises(DataError) as refusal:
        run_recipe(short, resume=True, log=SILENT)
    assert "self_train.from: " in str(refusal.value)


def test_a_teacher_of_other_classes_is_refused(folder: Path) -> None:
    recipe = taught(folder, "student", teacher="teacher")
    from ptft.data import open_split

    labelled = open_split(recipe.data, "train", seed=0)
    labelled.classes = ["blue", "red"]
    with pytest.raises(
        ModelError, match=r"self_train.from: .*no head on pictures for the 2 classes"
    ):
        with_pseudo_labels(recipe, labelled, torch.device("cpu"))


FOLDER = {"kind": "folder", "train": "a"}
CLASSIFY = {"kind": "classify"}


@pytest.mark.parametrize(
    "changes, said",
    [
        ({"data": {**FOLDER, "unlabelled": FOLDER}}, "data.unlabelled: nothing reads it"),
        ({"data": {**FOLDER, "unlabeled": FOLDER}}, "did you mean 'unlabelled'"),
        (
            {"data": {**FOLDER, "unlabelled": {"kind": "folder", "trian": "b"}}},
            "data.unlabelled.trian: unknown key; did you mean 'train'",
        ),
        ({"data": {**FOLDER, "unlabelled": {"kind": "folder", "val": "b"}}}, "with train"),
        (
            {"data": {**FOLDER, "unlabelled": {**FOLDER, "unlabelled": FOLDER}}},
            "no unlabelled of its own",
        ),
        (
            {"data": {**FOLDER, "unlabelled": {"kind": "table", "train": "b", "image": None}}},
            "image: null",
        ),
        ({"objective": CLASSIFY, "self_train": {"from": "x"}}, "data.unlabelled is missing"),
        (
            {"data": {**FOLDER, "unlabelled": FOLDER}, "self_train": {"from": "x"}},
            "self_train: with objective.kind 'clip'",
        ),
        (
            {
                "data": {**FOLDER, "unlabelled": FOLDER},
                "self_train": {"from": "x"},
                "objective": CLASSIFY,
                "adapt": {"kind": "tip_adapter"},
            },
            "self_train: with adapt.kind 'tip_adapter'",
        ),
    ],
)
def test_what_nothing_could_learn_from_is_refused(changes: dict[str, Any], said: str) -> None:
    assert any(said in line for line in problems(**changes)), problems(**changes)


def test_a_recipe_without_unlabelled_pictures_has_the_digest_that_it_had() -> None:
    plain = deciding_values(parse_recipe(values(), where="mine.yaml"))
    assert "self_train" not in plain and "unlabelled" not in plain["data"]
    given = {"data": {**FOLDER, "unlabelled": {**FOLDER, "max_skipped": 0.5}}}
    given |= {"objective": CLASSIFY, "self_train": {"from": "x"}}
    found = deciding_values(parse_recipe(values(**given), where="mine.yaml"))
    assert found["data"]["unlabelled"]["train"] == "a"
    assert "max_skipped" not in found["data"]["unlabelled"]
