"""A run opens each of its sets once, however often it looks and evaluates; the weights are those
of a run that opens them again each time."""

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ptft.data import kept_open, open_split
from ptft.data.sources.folder import Folder
from ptft.recipe.data import FolderData
from tests.support.runs import largest_difference, run


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    top, rng = tmp_path_factory.mktemp("data"), np.random.default_rng(0)
    for split, count in (("train", 24), ("val", 6), ("test", 6)):
        for place in ("cyan", "red"):
            (top / split / place).mkdir(parents=True)
            for number in range(count):
                pixels = rng.integers(0, 256, (32, 32, 3), np.uint8)
                Image.fromarray(pixels).save(top / split / place / f"{number}.png")
    return top


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the folders that were opened, each time."""
    names: list[str] = []
    begin = Folder.__init__

    def noted(self: Folder, section: FolderData, folder: Path, *rest: Any) -> None:
        names.append(folder.name)
        begin(self, section, folder, *rest)

    monkeypatch.setattr(Folder, "__init__", noted)
    return names


def data(folder: Path, **changes: Any) -> dict[str, Any]:
    paths = {split: str(folder / split) for split in ("train", "val", "test")}
    return {"kind": "folder", **paths, "classes": ["cyan", "red"], **changes}


CHANGES: dict[str, Any] = {
    "evaluate": [
        {"kind": "classify"},
        {"kind": "classify", "name": "again", "split": "test"},
        {"kind": "probe", "c": 1.0},
    ],
    "objective__kind": "classify",
    "run__evaluate_every": 2,
    "optim__samples_seen": 64,
}


def test_a_run_opens_each_split_once(
    folder: Path, tmp_path: Path, opened: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run(tmp_path / "once", data=data(folder), **CHANGES).finished
    assert sorted(opened) == ["test", "train", "val"]
    opened.clear()
    monkeypatch.setattr("ptft.train.run.kept_open", nullcontext)
    assert run(tmp_path / "often", data=data(folder), **CHANGES).finished
    assert len(opened) > 6, "it tells something"
    assert largest_difference(tmp_path / "once", tmp_path / "often") == 0.0
    once, often = ((tmp_path / name / "metrics.json").read_text() for name in ("once", "often"))
    assert once == often


def test_parts_of_a_set_share_it_and_other_sets_do_not(folder: Path, opened: list[str]) -> None:
    section = FolderData(**{**data(folder), "classes": None})
    with kept_open():
        whole = open_split(section, "train")
        few = open_split(section.model_copy(update={"limit": 5}), "train", seed=3)
        shots = open_split(section.model_copy(update={"shots": 2}), "train")
        assert (len(whole), len(few), len(shots)) == (48, 5, 4) and opened == ["train"]
        with kept_open():
            open_split(section, "train")
        assert opened == ["train"]
        balanced = open_split(section.model_copy(update={"resample": "class"}), "train")
        assert (balanced.resample, whole.resample) == ("class", "none")
        assert open_split(section, "val", classes=["red", "cyan"]).classes == ["red", "cyan"]
        assert open_split(section, "val", classes=["cyan", "red"]).classes == ["cyan", "red"]
    opened.clear()
    open_split(section, "train")
    open_split(section, "train")
    assert opened == ["train", "train"]
