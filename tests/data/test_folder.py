"""Pictures in folders: one a class, or with a table."""

import csv
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
from pydantic import ValidationError

from ptft.data.open import open_split
from ptft.errors import DataError, RecipeError, SampleError
from ptft.recipe.data import FolderData, MixtureData, MixturePart
from tests.support.shards import picture


def _class_folders(folder: Path, classes: dict[str, int]) -> Path:
    for place, (name, count) in enumerate(classes.items()):
        for number in range(count):
            path = folder / name / "more" / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(picture(100 * place + number))
        (folder / name / "notes.txt").write_text("no picture")
    return folder


def test_folders_are_classes(tmp_path: Path) -> None:
    section = FolderData(
        train=str(_class_folders(tmp_path / "train", {"tea": 2, "apple": 3})),
        val=str(_class_folders(tmp_path / "val", {"tea": 1})),
    )
    train, val = open_split(section, "train"), open_split(section, "val")
    assert train.classes == val.classes == ["apple", "tea"]
    assert [train[i].label for i in range(5)] == [0, 0, 0, 1, 1]
    assert train[0].captions == ()
    assert (val[0].label, val[0].name) == (1, "tea/more/0.png")
    spoken = FolderData(train=section.train, captions=["a photo of {label}"], limit=3)
    few = open_split(spoken, "train", seed=4)
    assert len(few) == 3
    assert {few[i].captions[0] for i in range(3)} <= {"a photo of tea", "a photo of apple"}
    with pytest.raises(DataError, match=r"data\.val: tea.*label 'tea' is not among the classes"):
        open_split(FolderData(val=section.val, classes=["apple"]), "val")


def test_a_folder_without_pictures_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(picture(1))  # in no class
    with pytest.raises(DataError, match=r"data\.train: .*: no pictures.*one folder a class"):
        open_split(FolderData(train=str(tmp_path)), "train")
    with pytest.raises(DataError, match="not a folder"):
        open_split(FolderData(train=str(tmp_path / "a.png")), "train")


def _csv(path: Path, rows: list[dict[str, Any]]) -> None:
    with path.with_suffix(".csv").open("w", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(
            {key: json.dumps(v) if isinstance(v, list) else v for key, v in row.items()}
            for row in rows
        )


def _jsonl(path: Path, rows: list[dict[str, Any]]) -> None:
    path.with_suffix(".jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def _parquet(path: Path, rows: list[dict[str, Any]]) -> None:
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path.with_suffix(".parquet"))


Writer = Callable[[Path, list[dict[str, Any]]], None]


@pytest.mark.parametrize("write", [_csv, _jsonl, _parquet])
def test_a_table_gives_captions_and_labels(tmp_path: Path, write: Writer) -> None:
    rows = [
        {"file_name": "a/1.png", "text": "one, or a", "kind": 3, "tags": ["x", "y"]},
        {"file_name": "2.png", "text": "zwei", "kind": 7, "tags": ["z"]},
    ]
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "1.png").write_bytes(picture(1))
    (tmp_path / "2.png").write_bytes(picture(2))
    write(tmp_path / "metadata", rows)
    plain = open_split(FolderData(train=str(tmp_path)), "train")
    assert [plain[i].captions for i in (0, 1)] == [("one, or a",), ("zwei",)]
    assert plain.classes is None
    section = FolderData(train=str(tmp_path), label="kind", captions=["{text}", "{tags}"])
    samples = open_split(section, "train")
    assert samples.classes == ["3", "7"]
    assert [samples[i].label for i in (0, 1)] == [0, 1]
    if write is not _csv:  # a cell of a CSV is one text
        assert samples[0].captions == ("one, or a", "x", "y")


@pytest.mark.parametrize("write", [_csv, _jsonl, _parquet])
@pytest.mark.parametrize("name", ["../secret.png", "/etc/hostname", "a/../../x.png", "C:\\x.png"])
def test_paths_that_leave_the_folder_are_refused(tmp_path: Path, write: Writer, name: str) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    (tmp_path / "secret.png").write_bytes(picture(1))
    write(folder / "metadata", [{"file_name": name, "text": "t"}])
    with pytest.raises(DataError, match=r"row 1: file_name .* leaves the folder"):
        open_split(FolderData(train=str(folder)), "train")


def test_links_that_leave_the_folder_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    (tmp_path / "secret.png").write_bytes(picture(1))
    (folder / "link.png").symlink_to(tmp_path / "secret.png")
    (folder / "own.png").write_bytes(picture(2))
    (folder / "inner.png").symlink_to(folder / "own.png")
    _jsonl(
        folder / "metadata",
        [{"file_name": f"{n}.png", "text": n} for n in ("link", "inner", "gone")],
    )
    samples = open_split(FolderData(train=str(folder)), "train")
    with pytest.raises(SampleError, match=r"link\.png: it links to a place outside"):
        samples[0]
    assert samples[1].captions == ("inner",)
    with pytest.raises(SampleError, match=r"gone\.png: No such file"):
        samples[2]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("metadata.csv", "file,text\na.png,x\n", "row 1: no file_name; .*columns: file, text"),
        ("metadata.csv", "file_name,text\na.png,x,y\n", "row 1: more cells than"),
        ("metadata.csv", "file_name,text\n", "no rows"),
        ("metadata.jsonl", '{"file_name": "a.png"}\n{\n', "line 2: not JSON"),
        ("metadata.jsonl", "[1]\n", "line 1: list; allowed: an object"),
        ("metadata.jsonl", '{"file_name": 3}\n', "row 1: file_name is 3"),
        ("metadata.parquet", "x", "metadata.parquet: "),
    ],
)
def test_broken_tables_are_named(tmp_path: Path, name: str, content: str, message: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(DataError, match=message) as caught:
        open_split(FolderData(test=str(tmp_path)), "test")
    assert str(caught.value).startswith(f"data.test: {tmp_path / name}: ")


def test_two_tables_are_an_error(tmp_path: Path) -> None:
    (tmp_path / "metadata.csv").touch()
    (tmp_path / "metadata.jsonl").touch()
    with pytest.raises(DataError, match=r"metadata.csv and metadata.jsonl; allowed: one table"):
        open_split(FolderData(train=str(tmp_path)), "train")


def _held(section: FolderData, split: str, seed: int = 0) -> list[str]:
    found = open_split(section, split, seed=seed)  # type: ignore[arg-type]
    return [found.name(index) for index in range(len(found))]


def test_a_held_out_share_is_nobodys_to_learn_from(tmp_path: Path) -> None:
    _class_folders(tmp_path / "train", {"bird": 20, "cat": 10})
    section = FolderData(train=str(tmp_path / "train"), hold_out=0.2)
    val = _held(section, "val")
    assert sorted(Counter(name.split("/")[0] for name in val).items()) == [("bird", 4), ("cat", 2)]
    for seed in range(3):
        limited = section.model_copy(update={"shots": 6})
        assert _held(section, "val", seed) == val
        assert not set(val) & {*_held(section, "train", seed), *_held(limited, "train", seed)}
    assert len(_held(section, "train")) == 24
    with pytest.raises(ValidationError, match=r"hold_out: 0\.2 beside val; allowed: one"):
        FolderData(train="x", val="y", hold_out=0.2)
    with pytest.raises(RecipeError, match=r"data\.hold_out: 0\.001: holds no sample out of 30"):
        open_split(section.model_copy(update={"hold_out": 0.001}), "val")
    with pytest.raises(RecipeError, match=r"data\.hold_out: 0\.2: of a train that is missing"):
        open_split(FolderData(test="x", hold_out=0.2), "val")
    mixed = MixtureData(parts=[MixturePart(data=section), MixturePart(data=section)])
    assert len(open_split(mixed, "val")) == 12
