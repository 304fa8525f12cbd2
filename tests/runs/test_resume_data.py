"""A run that goes on is held against the data that it began with."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from ptft.artifact import RunFiles
from ptft.compare import compare
from ptft.errors import DataError, UsageError
from ptft.model import save_model
from ptft.recipe import load_recipe
from ptft.runs.data_record import read_identities, sets_of
from ptft.runs.folder import read_run
from ptft.speech import SILENT
from ptft.train import train
from tests.support.comparisons import comparison
from tests.support.runs import BATCH, interrupt, largest_difference, recipe, run
from tests.support.tiny import build, towers_section

STEPS = 4


def make_data(place: Path, first: int = 0) -> Path:
    place.mkdir(parents=True)
    for number in range(40):
        Image.new("RGB", (32, 32), (number * 6, 255 - number * 6, first)).save(
            place / f"{number}.png"
        )
    rows = [f"{number}.png,picture {number}" for number in range(40)]
    (place / "metadata.csv").write_text("\n".join(["file_name,text", *rows]))
    return place


def edit(place: Path, old: str, new: str) -> None:
    table = place / "metadata.csv"
    table.write_text(table.read_text().replace(old, new))


@pytest.fixture
def data(tmp_path: Path) -> Path:
    make_data(tmp_path / "val", 99)
    return make_data(tmp_path / "train")


def changes(root: Path, **more: Any) -> dict[str, Any]:
    """A run that starts from a model, stops early, and evaluates on a set of its own."""
    if not (root / "start").exists():
        save_model(build(towers_section()), root / "start")
    data = {"kind": "folder", "train": str(root / "train"), "val": str(root / "val")}
    own = {"kind": "folder", "val": str(root / "val"), "test": str(root / "train")}
    return {
        "model": None,
        "init": {"from": str(root / "start")},
        "data": data,
        "optim__samples_seen": STEPS * BATCH,
        "run__checkpoint_every": 1,
        "run__page": False,
        "evaluate": [
            {"kind": "retrieval"},
            {"kind": "retrieval", "name": "own", "split": "test", "data": own},
        ],
        **more,
    }


def test_every_set_and_model_is_recorded(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = changes(tmp_path)
    interrupt(monkeypatch, tmp_path / "run", 2, **given)
    found = read_identities(tmp_path / "run")
    assert list(found) == ["data.train", "data.val", "evaluate.1.data.test", "init.from"]
    assert [found[key].count for key in list(found)[:3]] == [40, 40, 40]
    assert "model.safetensors" in found["init.from"].names
    assert set(sets_of(recipe(tmp_path / "run", **given))) < set(found)


CHANGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "a caption": (
        lambda root: edit(root / "train", "picture 7", "painting 7"),
        r"data\.train: of 40 samples 1 changed \(first: 7\.png\)",
    ),
    "rows": (
        lambda root: edit(root / "train", "\n3.png,picture 3\n", "\n"),
        r"data\.train: of 40 samples 1 gone \(first: 3\.png\)",
    ),
    "what it is judged on": (
        lambda root: shutil.copy(root / "train/1.png", root / "val/5.png"),
        r"data\.val: of 40 samples 1 changed \(first: 5\.png\)",
    ),
    "what it starts from": (
        lambda root: save_model(build(towers_section(), seed=7), root / "start"),
        r"init\.from: of \d+ files 1 changed \(first: model\.safetensors\)",
    ),
}


@pytest.mark.parametrize("case", CHANGES)
def test_other_data_are_refused_and_may_be_accepted(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    change, expected = CHANGES[case]
    given = changes(tmp_path)
    interrupt(monkeypatch, tmp_path / "run", 2, **given)
    before = (tmp_path / "run" / RunFiles.DATA).read_bytes()
    if case == "what it starts from":
        shutil.rmtree(tmp_path / "start")
    change(tmp_path)
    with pytest.raises(DataError, match=expected) as refusal:
        run(tmp_path / "run", resume=True, **given)
    assert "--accept-changes" in str(refusal.value)
    record = read_run(tmp_path / "run")
    assert (record.status, record.step, record.accepted) == ("stopped", 2, [])
    assert (tmp_path / "run" / RunFiles.DATA).read_bytes() == before

    made = recipe(tmp_path / "run", **given)
    assert train(made, resume=True, accept_changes=True, log=SILENT).finished
    record = read_run(tmp_path / "run")
    (entry,) = record.accepted
    assert entry["step"] == 2
    assert entry["changes"][0] in "\n".join(record.notes)
    assert read_run(tmp_path / "run").status == "finished"
    assert (tmp_path / "run" / RunFiles.DATA).read_bytes() != before


def test_accepted_data_are_what_the_next_resume_is_held_against(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = changes(tmp_path, optim__samples_seen=None, optim__epochs=2)
    interrupt(monkeypatch, tmp_path / "run", 1, **given)
    table = tmp_path / "train/metadata.csv"
    table.write_text("\n".join(table.read_text().splitlines()[:32]))
    accepted = {"resume": True, "accept_changes": True, "log": SILENT}
    with monkeypatch.context() as patch:
        patch.setattr("tests.support.runs.run_recipe", lambda made, **_: train(made, **accepted))
        interrupt(patch, tmp_path / "run", 1, **given)
    assert run(tmp_path / "run", resume=True, **given).finished
    record = read_run(tmp_path / "run")
    assert len(record.accepted) == 1
    assert record.total == 4 * BATCH, "of the data as they are now"


def test_the_same_data_elsewhere_give_the_same_weights(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run(tmp_path / "whole", **changes(tmp_path)).finished
    interrupt(monkeypatch, tmp_path / "run", 2, **changes(tmp_path))
    other = tmp_path / "elsewhere"
    for name in ("train", "val", "start"):
        shutil.copytree(tmp_path / name, other / name)  # with times of its own
        shutil.rmtree(tmp_path / name)
    (other / "train/metadata.csv").touch()
    moved = changes(other, run__workers=2, run__threads=1)
    with pytest.raises(UsageError, match=r"optim\.lr is 0\.001 there and 0\.5 here"):
        run(tmp_path / "run", resume=True, **{**moved, "data": moved["data"], "optim__lr": 0.5})
    assert run(tmp_path / "run", resume=True, **moved).finished
    assert largest_difference(tmp_path / "whole", tmp_path / "run") == 0.0
    resolved = load_recipe(tmp_path / "run" / RunFiles.RECIPE)
    assert resolved.data.train == str(other / "train"), "an export finds its data there"
    record = read_run(tmp_path / "run")
    assert record.accepted == []
    assert any("elsewhere" in note for note in record.notes)


def test_a_run_of_before_this_was_recorded_goes_on_and_says_so(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupt(monkeypatch, tmp_path / "run", 2, **changes(tmp_path))
    (tmp_path / "run" / RunFiles.DATA).unlink()
    values = json.loads((tmp_path / "run" / RunFiles.RUN).read_text())
    del values["accepted"]
    (tmp_path / "run" / RunFiles.RUN).write_text(json.dumps(values))
    assert run(tmp_path / "run", resume=True, **changes(tmp_path)).finished
    assert any("before its data were recorded" in n for n in read_run(tmp_path / "run").notes)
    assert (tmp_path / "run" / RunFiles.DATA).is_file()


def test_a_sequence_is_held_against_the_data_of_all_its_stages(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = {"kind": "folder", "train": str(tmp_path / "train"), "val": str(tmp_path / "val")}
    scenes = {"kind": "scenes", "size": 32, "train": 80, "val": 16, "test": 16}
    stages = [
        {"name": "one", "data": scenes},
        {"name": "two", "data": own, "evaluate": {"kind": "retrieval"}},
    ]
    given = changes(tmp_path, data=None, evaluate=[], stages=stages, run__neighbours=False)
    interrupt(monkeypatch, tmp_path / "run", 2, **given)
    edit(tmp_path / "train", "picture 7", "painting 7")
    with pytest.raises(DataError, match=r"stages\.two\.data\.train: of 40 samples 1 changed"):
        run(tmp_path / "run", resume=True, **given)
    made = recipe(tmp_path / "run", **given)
    assert train(made, resume=True, accept_changes=True, log=SILENT).finished
    assert len(read_run(tmp_path / "run").accepted) == 1


def test_a_comparison_is_held_against_the_data_of_its_finished_cells(
    data: Path, tmp_path: Path
) -> None:
    made = comparison(tmp_path, trials=1, seeds=1, wise=[])
    section = {
        "kind": "folder",
        **{split: str(tmp_path / "train") for split in ("train", "val", "test")},
    }
    values = made.model_dump(mode="json", by_alias=True)
    made = type(made).model_validate({**values, "data": section})
    assert compare(made, max_minutes=0.0, log=SILENT).left == 2
    assert compare(made, log=SILENT).left == 0
    edit(tmp_path / "train", "picture 7", "painting 7")
    with pytest.raises(DataError, match=r"data\.train: of 40 samples 1 changed") as refusal:
        compare(made, log=SILENT)
    assert "data.val" in str(refusal.value)
    assert "data.test" in str(refusal.value)
    outcome = compare(made, accept_changes=True, log=SILENT)
    assert "The data changed after 2 cells" in (outcome.folder / "report.md").read_text()
    again = compare(made, log=SILENT)
    assert "The data changed after 2 cells" in (again.folder / "report.md").read_text()
