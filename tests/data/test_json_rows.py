"""Large files of JSON lines are mapped, and give the rows that reading them into memory gives."""

import json
import pickle
from pathlib import Path
from typing import Any

import pytest

from ptft.data import mapped, open_split
from ptft.data.fields.label_values import LabelCodes
from ptft.data.sources import csv_columns, json_rows
from ptft.data.sources.json_rows import open_json_rows
from ptft.data.sources.plain_rows import read_jsonl
from ptft.errors import DataError
from ptft.recipe.data import FolderData, TableData
from tests.support.shards import write_pictures

SIZES = (0, 1 << 40)  # every file is a large one, and none is


@pytest.fixture(autouse=True)
def large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(json_rows, "LARGE", 0)
    monkeypatch.setattr(json_rows, "ROWS_AT_ONCE", 3)
    monkeypatch.setattr(mapped.platformdirs, "user_cache_path", lambda name: tmp_path / name)
    return tmp_path / "ptft" / "columns"


ROWS: list[dict[str, Any]] = [
    {"text": "a", "n": 1},
    {"text": "日本 \n\0\ufeff", "n": 1.0, "deep": {"a": [None, True]}},
    {"n": None, "late": [1, "two"]},
    {},
    {"text": ["a", "b"], "n": True, "late": "x"},
    {"text": "a", "n": 10**40},
    {"text": "", "n": False},
]


def write(path: Path, rows: list[dict[str, Any]], *, ascii_only: bool = True) -> Path:
    lines = [json.dumps(row, ensure_ascii=ascii_only) for row in rows]
    path.write_text("\ufeff" + "\n\n".join(lines) + "\n \n", encoding="utf-8")
    return path


@pytest.mark.parametrize("ascii_only", [True, False])
def test_rows_are_those_of_the_other_reader(tmp_path: Path, ascii_only: bool) -> None:
    path = write(tmp_path / "a.jsonl", ROWS * 3, ascii_only=ascii_only)
    found = open_json_rows(path)
    assert found is not None and list(found) == read_jsonl(path) == ROWS * 3
    assert found.names == ["text", "n", "deep", "late"]
    for name in (*found.names, "none"):
        mine = found.column(name)
        theirs = LabelCodes.of(row.get(name) for row in ROWS * 3)
        assert (mine.values, mine.firsts) == (theirs.values, theirs.firsts)
        assert list(map(type, mine.values)) == list(map(type, theirs.values))
        assert mine.codes.tolist() == theirs.codes.tolist()
        again = found.column(name)
        assert (again.values, again.codes.tolist()) == (mine.values, mine.codes.tolist())


def test_it_is_built_once_and_again_when_it_changes(
    tmp_path: Path, large: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "a.jsonl", ROWS)
    assert open_json_rows(path) is not None
    with monkeypatch.context() as again:
        again.setattr(json_rows, "json_lines", None)
        assert list(open_json_rows(path) or []) == ROWS
    assert not list(large.glob(".*.partial"))
    write(path, ROWS[::-1])
    assert list(open_json_rows(path) or []) == ROWS[::-1]


@pytest.mark.parametrize("line", [b"[1]", b'{"a": 1', b'{"a": "\xff"}', b'{"a": 1, "a": 2}'])
def test_of_a_broken_file_nothing_is_kept(tmp_path: Path, line: bytes, large: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"a": 1}\n' * 4 + line + b"\n")
    assert open_json_rows(path) is None
    assert not list(large.glob("*.bin")) and not list(large.glob(".*.partial"))
    with pytest.raises(DataError, match=r"a\.jsonl: line 5: "):
        open_split(TableData(train=str(path), image=None), "train")


def test_half_of_a_surrogate_pair_is_no_text_that_could_be_kept(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", [{"file_name": "\ud800", "text": "x"}])
    assert open_json_rows(path) is None


def told(section: FolderData | TableData) -> list[Any]:
    samples = open_split(section, "train")
    again = pickle.loads(pickle.dumps(samples))
    labels = samples.labels()
    return [
        [samples.name(n) for n in range(len(samples))],
        [again.captions(n) for n in range(len(samples))],
        None if labels is None else labels.tolist(),
        samples.classes,
        samples.notes(1),
        samples.fingerprint(),
    ]


def test_a_table_of_several_files_is_the_same_by_either_reader(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [{"text": f"text {n}", "kind": ["sea", "sky", None][n % 3]} for n in range(10)]
    write(tmp_path / "a.jsonl", rows[:7])
    write(tmp_path / "b.jsonl", [*rows[7:], {"other": 1, "text": "x", "kind": "sky"}])
    (tmp_path / "c.csv").write_text('text,kind\n"a,b",sea\nlast,sky\n')
    for files in ("*.jsonl", "*.csv"):
        found = []
        for size in SIZES:
            monkeypatch.setattr(json_rows, "LARGE", size)
            monkeypatch.setattr(csv_columns, "LARGE", size)
            given = {"train": str(tmp_path / files), "image": None, "captions": ["{text}"]}
            found.append(told(TableData(**given, label="kind")))
        assert found[0] == found[1]
        assert found[0][0][-1] == ("c.csv/1" if files == "*.csv" else "b.jsonl/3")


def test_a_folder_is_the_same_by_either_reader(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "set"
    names = write_pictures(folder)
    rows: list[dict[str, Any]] = [
        {"file_name": name, "text": f"text of {name}", "kind": f"k{place % 2}"}
        for place, name in enumerate([*names[:5], "a.png"])
    ]
    write(folder / "metadata.jsonl", [*rows, {"file_name": "gone.png", "kind": "k1"}])
    section = FolderData(train=str(folder), label="kind", captions=["{text}"], join="bytes")
    found = []
    for size in SIZES:
        monkeypatch.setattr(json_rows, "LARGE", size)
        found.append(told(section))
    assert found[0] == found[1] and "ü.png" in found[0][0]
    for wrong, message in (("../b.png", "leaves the folder"), (3, "file_name is 3")):
        write(folder / "metadata.jsonl", [rows[0], {"file_name": wrong}])
        for size in SIZES:
            monkeypatch.setattr(json_rows, "LARGE", size)
            with pytest.raises(DataError, match=rf"row 2: .*{message}"):
                open_split(section, "train")
