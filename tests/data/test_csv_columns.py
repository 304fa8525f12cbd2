"""Large CSV files are read as columns, and give the rows that reading them row by row gives."""

import csv
import io
from pathlib import Path

import numpy as np
import pytest

from ptft.data import mapped, open_split
from ptft.data.kept import PackedTexts
from ptft.data.sources import csv_columns
from ptft.data.sources.csv_columns import open_columns, plain_paths
from ptft.data.sources.folder_rows import posix
from ptft.data.sources.plain_rows import read_csv
from ptft.errors import DataError
from ptft.files.bounds import check_inside
from ptft.recipe.data import FolderData
from tests.support.shards import write_pictures


@pytest.fixture(autouse=True)
def large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Every file is a large one."""
    monkeypatch.setattr(csv_columns, "LARGE", 0)
    monkeypatch.setattr(mapped.platformdirs, "user_cache_path", lambda name: tmp_path / name)
    return tmp_path / "ptft" / "columns"


CELLS = [
    *("a", "", "a b", 'say "so"', "x,y", "two\nlines", "a\r\nb", "\rc", "ü", "日本", " [1]"),
    *('["a", "b"]', "[1, 2]", "[", '"', '""', "'", "0", " lead", "trail ", "\ufeff", "a;b\tc"),
]


@pytest.mark.parametrize("ending", ["\n", "\r\n"])
def test_rows_are_those_of_the_other_reader(
    tmp_path: Path, ending: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(csv_columns, "BLOCK", 97)  # quotes and rows lie across blocks
    rng = np.random.default_rng(0)
    read = 0
    for case in range(48):
        stream = io.StringIO(newline="")
        quoting = csv.QUOTE_ALL if case % 3 == 0 else csv.QUOTE_MINIMAL
        table = csv.writer(stream, lineterminator=ending, quoting=quoting)
        width = 1 + case % 4
        table.writerow([f"n {place}" for place in range(width)])
        cells = [cell for cell in CELLS if case % 8 == 0 or "\r" not in cell]
        for _ in range(30):
            table.writerow([str(cell) for cell in rng.choice(cells, width)])
        path = tmp_path / f"{case}.csv"
        path.write_text("\ufeff" * (case % 2) + stream.getvalue(), encoding="utf-8", newline="")
        found = open_columns(path)
        if found is not None:
            assert list(found) == read_csv(path)
            read += 1
    assert read > 30, "it is mostly read as columns"


@pytest.mark.parametrize(
    "text",
    [
        'a,b\nx"y,1\n',  # a quote within a cell
        'a,b\n"x"y,1\n',  # something behind one
        'a,b\n"x,1\n',  # one that is left open
        "a,b\n1\n",  # a row that is shorter
        "a,b\n1,2,3\n",
        "a,b\n1,\0\n",
        "a,b\n" + "x" * 200_000 + ",1\n",
        "a,b\n",
        "a,b",
        '"a\nb",c\n1,2\n',
        "\n1,2\n",
    ],
)
def test_what_the_readers_might_differ_about_is_read_row_by_row(tmp_path: Path, text: str) -> None:
    path = tmp_path / "t.csv"
    path.write_text(text, newline="")
    assert open_columns(path) is None
    path.write_bytes(b"a,b\n1,\xff\n")
    assert open_columns(path) is None


def test_a_table_is_built_once_and_again_when_it_changes(tmp_path: Path, large: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("a,b\n1,2\n3,4\n")
    first = open_columns(path)
    built = {one.name: one.stat().st_ino for one in large.glob("*.bin")}
    assert first is not None and list(first) == [{"a": "1", "b": "2"}, {"a": "3", "b": "4"}]
    again = open_columns(path)
    assert again is not None and list(again) == list(first)
    assert {one.name: one.stat().st_ino for one in large.glob("*.bin")} == built
    assert not list(large.glob(".*.partial"))
    path.write_text("a,b\n1,2\n3,5\n9,9\n")
    changed = open_columns(path)
    assert changed is not None and len(changed) == 3
    next(large.glob("*.bin")).unlink()  # let go
    for _ in range(2):
        mended = open_columns(path)
        assert mended is not None and list(mended) == list(changed)
    path.write_text("a,a\n1,2\n")
    with pytest.raises(DataError, match="two columns are named 'a'"):
        open_columns(path)


PATHS = [
    *("a.png", "b/c.png", "b/c d.png", "a..png", "_/-.png", "x" * 255, "x" * 256, "/a.png"),
    *("../a.png", "a/../b.png", "a//b.png", "./a.png", "a/./b.png", ".a.png", "a\\b.png", "c:a"),
    *("", " ", "a/", "ü.png", "a\nb.png", "a.png\n", "..", ".", "a/..", "a/.b", "x/" * 200 + "y"),
]


def test_plain_paths_are_paths_inside_a_folder_as_they_are_listed() -> None:
    plain = plain_paths(PackedTexts.pack(PATHS)).tolist()
    assert plain[:6] == [True] * 6
    for path, is_plain in zip(PATHS, plain, strict=True):
        if is_plain:
            check_inside(path, "row", error=DataError)
            assert posix(path) == path and path.strip()
    assert sum(plain) == 6


def test_a_folder_is_the_same_by_either_reader(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "set"
    names = write_pictures(folder)
    rows = [(name, f"text of {name}", f"k{place % 2}") for place, name in enumerate(names[:5])]
    rows += [("a.png", '["again", "twice"]', "k0"), ("gone.png", "gone", "k1")]
    with (folder / "metadata.csv").open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerows([("file_name", "text", "kind"), *rows])
    found = []
    for size in (0, 1 << 30):
        monkeypatch.setattr(csv_columns, "LARGE", size)
        for section in (
            FolderData(train=str(folder)),
            FolderData(train=str(folder), label="kind", captions=["{text}"], join="bytes"),
            FolderData(train=str(folder), label="kind", hold_out=0.4, join="none"),
        ):
            samples = open_split(section, "train")
            labels = samples.labels()
            found.append(
                (
                    [samples.name(n) for n in range(len(samples))],
                    [samples.describe(n) for n in range(len(samples))],
                    None if labels is None else labels.tolist(),
                    samples.notes(1),
                    samples.absent(),
                    samples.fingerprint(),
                )
            )
    assert found[:3] == found[3:]
    assert any("that the table does not name (first: left.png)" in note for note in found[0][3])
    (folder / "metadata.csv").write_text("file_name,text\na.png,x\n../b.png,y\n")
    for size in (0, 1 << 30):
        monkeypatch.setattr(csv_columns, "LARGE", size)
        with pytest.raises(DataError, match=r"row 2: file_name.*leaves the folder"):
            open_split(FolderData(train=str(folder)), "train")
