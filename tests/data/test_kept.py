"""What opening a large set found is kept: to open it again gives the same, and looks at nothing
that has not changed."""

import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

from ptft.data import kept as kept_files
from ptft.data import listing, mapped, open_split
from ptft.data.kept import keep, kept
from ptft.data.listing import list_pictures, walked_anew
from ptft.data.mapped import pickle_mapped, shared
from ptft.data.parquet import layout
from ptft.data.parquet import rows as parquet_rows
from ptft.data.sources import csv_columns, folder_rows
from ptft.data.sources.shards import Shards
from ptft.data.tar import files
from ptft.data.tar.index_file import write_index
from ptft.recipe.data import FolderData, ShardsData, TableData
from tests.support.shards import picture, write_parquet, write_tar


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Every set is a large one, that nobody has changed of late."""
    for module, name in (
        (listing, "MANY"),
        (layout, "MANY"),
        (files, "LARGE_INDEXES"),
        (csv_columns, "LARGE"),
    ):
        monkeypatch.setattr(module, name, 0)
    monkeypatch.setattr(kept_files, "REST", -3600.0)
    monkeypatch.setattr(mapped.platformdirs, "user_cache_path", lambda name: tmp_path / name)
    return tmp_path / "ptft" / "columns"


def forbid(monkeypatch: pytest.MonkeyPatch, holder: Any, name: str) -> None:
    def called(*_: Any, **__: Any) -> None:
        raise AssertionError(f"{name} is called again")

    monkeypatch.setattr(holder, name, called)


def told(found: listing.Listing) -> list[Any]:
    lines = found.passed_over.lines()
    return [list(found.pictures), found.tops.tolist(), found.folders, found.tables, lines]


def test_arrays_come_back_as_they_are(cache: Path) -> None:
    rng = np.random.default_rng(0)
    arrays = {
        "a": rng.integers(0, 9, (3, 5)).astype(np.int32),
        "none": np.empty((0, 4), np.uint8),
        "b": rng.random(1000),
        "turned": np.arange(12).reshape(3, 4).T,
    }
    assert kept("x", 1) is None
    for found in (keep(arrays, "x", 1), kept("x", 1)):
        assert found is not None and found.keys() == arrays.keys()
        for name, array in arrays.items():
            assert found[name].dtype == array.dtype and np.array_equal(found[name], array)
    assert kept("x", 2) is None and kept("x", "1") is not None  # what is told by its text
    (path,) = cache.glob("*.bin")
    path.write_bytes(path.read_bytes()[:40])
    assert kept("x", 1) is None


def test_where_nothing_can_be_kept_the_arrays_are_what_they_were(cache: Path) -> None:
    cache.mkdir(parents=True)
    (cache / "letters.txt").write_text("dear to me")
    arrays = {"a": np.arange(5)}
    assert keep(arrays, "x")["a"] is arrays["a"] and kept("x") is None


def test_parts_of_a_kept_file_reach_a_process_as_places_in_it(cache: Path) -> None:
    numbers = np.arange(400_000)
    found = keep({"small": np.arange(3), "large": numbers}, "x")["large"]
    values = [found, found[1000:300_000], found.view(np.uint32), found[::2], shared(numbers)]
    pickled = pickle_mapped(values[:3])
    assert len(pickled) < 1000 and len(list(cache.glob("*.bin"))) == 2  # of ``shared`` the second
    for one, other in zip(pickle.loads(pickle_mapped(values)), values, strict=True):
        assert one.dtype == other.dtype and np.array_equal(one, other)
    assert shared(np.arange(9)).flags.writeable, "a small one stays as it is"
    assert not shared(numbers).flags.writeable and np.array_equal(shared(numbers), numbers)


def test_shards_are_opened_again_without_their_indexes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write(shard: int, labels: str) -> None:
        rows: dict[str, bytes] = {}
        for n, label in enumerate(labels):
            rows |= {f"{n}.png": picture(n % 5), f"{n}.cls": label.encode()}
            rows[f"{n}.json"] = b'{"kind": %d}' % (n % 2)
        write_tar(tmp_path / f"{shard}.tar", rows)
        write_index(tmp_path / f"{shard}.tar")

    write(0, "abca")
    write(1, "cabbac")
    section = ShardsData(train=str(tmp_path / "*.tar"))
    before = open_split(section, "train")
    by_json = open_split(section.model_copy(update={"label": "kind"}), "train").labels()
    walked = [before.name(n) for n in range(len(before))]
    with monkeypatch.context() as again:
        forbid(again, files, "read_index")
        for name in ("_labels_of", "_same"):
            forbid(again, Shards, name)
        after = open_split(section, "train")
        others = open_split(section.model_copy(update={"label": "kind"}), "train")
        assert others.labels() is not None and by_json is not None
        assert np.array_equal(others.labels(), by_json)  # type: ignore[arg-type]
    assert after.notes(1) == before.notes(1) and "the picture of another" in after.notes(1)[-1]
    for one, other in zip(
        (after.labels(), after.pictures()), (before.labels(), before.pictures()), strict=True
    ):
        assert one is not None and other is not None and np.array_equal(one, other)
    assert [after.name(n) for n in range(len(after))] == walked
    assert [after[n].label for n in range(10)] == after.labels().tolist()  # type: ignore[union-attr]
    write(1, "cabbaa")  # of the same size
    changed = open_split(section, "train").labels()
    assert changed is not None and changed.tolist() == [0, 1, 2, 0, 2, 0, 1, 1, 0, 0]
    (tmp_path / "1.tar.index").unlink()
    assert len(open_split(section, "train")) == 10


def test_a_folder_is_walked_again_where_one_of_its_folders_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "pictures"
    for name in ("a/1.png", "a/deep/2.png", "b/3.png", "b/note.txt", "a/metadata.csv"):
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        (home / name).write_bytes(picture(1))
    first = list_pictures(home)
    with monkeypatch.context() as again:
        forbid(again, listing.os, "scandir")
        for folder in (home, Path(os.path.relpath(home))):
            assert told(list_pictures(folder)) == told(first)
        with walked_anew(), pytest.raises(AssertionError):
            list_pictures(home)
        with walked_anew(False):
            assert told(list_pictures(home)) == told(first)
    assert first.passed_over.counts == {"files that are no pictures (.txt)": 1}
    (home / "a/deep/9.png").write_bytes(picture(2))
    assert list(list_pictures(home).pictures)[1:3] == ["a/deep/2.png", "a/deep/9.png"]
    (home / "a/1.png").unlink()
    (home / "c").symlink_to(home / "b")
    assert list(list_pictures(home).pictures) == [
        *("a/deep/2.png", "a/deep/9.png", "b/3.png", "c/3.png")
    ]
    (home / "b/4.png").symlink_to(tmp_path / "later.png")  # leads nowhere yet
    assert "broken links" in list_pictures(home).passed_over.counts
    (tmp_path / "later.png").write_bytes(picture(3))
    assert "b/4.png" in list(list_pictures(home).pictures)


def test_what_was_changed_just_now_is_not_kept(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kept_files, "REST", 3600.0)
    (tmp_path / "pictures/a").mkdir(parents=True)
    (tmp_path / "pictures/a/1.png").write_bytes(picture(1))
    list_pictures(tmp_path / "pictures")
    assert not list(cache.glob("*.bin"))


def test_labels_of_a_parquet_file_are_read_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_parquet(tmp_path / "a.parquet", 25)
    section = TableData(train=str(path), image="image", label="kind", join="none")
    before = open_split(section, "train").labels()
    with monkeypatch.context() as again:
        forbid(again, parquet_rows, "read_group")
        forbid(again, layout, "row_groups")
        after = open_split(section, "train").labels()
        assert before is not None and after is not None and np.array_equal(before, after)
    write_parquet(path, 25, first=1)
    changed = open_split(section, "train").labels()
    assert changed is not None and changed.tolist() == [n % 3 for n in range(1, 26)]
    numbers = pyarrow.table({"image": [picture(1)] * 3, "kind": [1.0, 2.0, 1.0]})
    pyarrow.parquet.write_table(numbers, path)  # no text and no whole number: not kept
    for _ in range(2):
        labels = open_split(section, "train").labels()
        assert labels is not None and labels.tolist() == [0, 1, 0]


def test_paths_of_a_table_are_held_against_each_other_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(3):
        (tmp_path / f"{number}.png").write_bytes(picture(number))
    rows = ["file_name,text", "0.png,a", "1.png,b", "0.png,c", "2.png,d"]
    (tmp_path / "metadata.csv").write_text("\n".join(rows) + "\n")
    section = FolderData(train=str(tmp_path))
    before = open_split(section, "train")
    for name in ("_same", "path_hashes"):
        forbid(monkeypatch, folder_rows.ColumnRows, name)
    forbid(monkeypatch, csv_columns, "plain_paths")
    after = open_split(section, "train")
    assert [after.captions(n) for n in range(3)] == [("a", "c"), ("b",), ("d",)]
    assert [before.captions(n) for n in range(3)] == [after.captions(n) for n in range(3)]
