"""Sets as columns: labels, keys and listings come out as they do one by one."""

import json
import pickle
from pathlib import Path

import numpy as np
import pytest

from ptft.data import open_split
from ptft.data.fields.joining import first_digests, first_rows, group_rows, repeated_numbers
from ptft.data.fields.label_values import LabelCodes
from ptft.data.kept import PackedTexts
from ptft.data.listing import list_pictures
from ptft.data.mapped import pickle_mapped
from ptft.data.sources.shards import Shards
from ptft.data.tar.index_file import index_path, write_index
from ptft.errors import DataError
from ptft.recipe.data import FolderData, ShardsData
from tests.support.shards import picture, write_tar

TEXTS = ["", "a", "ü", "a", "", "日本", "a b\n", "\ufeffx"]


def test_packed_texts_are_the_texts() -> None:
    packed = PackedTexts.pack(TEXTS)
    assert list(packed) == TEXTS == [packed[number] for number in range(len(TEXTS))]
    assert packed == TEXTS and packed != TEXTS[:-1] and packed[-1] == TEXTS[-1]
    assert packed[1:4] == TEXTS[1:4]
    distinct, codes = packed.encode()
    assert distinct == list(dict.fromkeys(TEXTS))
    assert [distinct[code] for code in codes.tolist()] == TEXTS
    assert list(PackedTexts.pack([])) == [] and PackedTexts.pack([]).encode()[0] == []
    odd = "name\udcff"  # of a file, in bytes that are no UTF-8
    assert PackedTexts.pack([odd])[0] == odd
    with pytest.raises(IndexError):
        packed[len(TEXTS)]


@pytest.mark.parametrize(
    ("text", "ends"),
    [(b"ab", [2, 1]), (b"ab", [-1, 2]), ("ü".encode(), [1, 2]), (b"\xff", [1])],
)
def test_what_are_no_texts_is_told(text: bytes, ends: list[int]) -> None:
    broken = PackedTexts(np.frombuffer(text, np.uint8), np.array(ends, np.int64))
    with pytest.raises(ValueError):
        broken.check("keys")


def test_labels_by_number_are_the_labels() -> None:
    values = ["a", 1, True, "1", None, "a", 1.5, 1, [2], None, [2]]
    codes = LabelCodes.of(values)
    rows = [None if code < 0 else codes.values[code] for code in codes.codes.tolist()]
    assert rows == values and [type(row) for row in rows] == [type(value) for value in values]
    assert [values[first] for first in codes.firsts] == codes.values
    assert codes.firsts == sorted(codes.firsts)
    parts = LabelCodes.joined([LabelCodes.of(values[:4]), LabelCodes.of(values[4:])])
    assert parts.values == codes.values and parts.firsts == codes.firsts
    assert np.array_equal(parts.codes, codes.codes)
    left = codes.without(lambda value: value == "a")
    expected = [None if value == "a" else value for value in values]
    assert [None if c < 0 else left.values[c] for c in left.codes.tolist()] == expected
    assert [values[first] for first in left.firsts] == left.values
    changed = codes.replaced({0: "b", 4: "a"})
    assert [changed.values[code] for code in changed.codes.tolist()[:6]] == [
        *("b", 1, True, "1", "a", "a")
    ]


def test_values_that_are_numbered_otherwise_are_the_same_labels() -> None:
    values, codes = ["z", "b", "a", None, "b"], np.array([2, -1, 1, 2, 3, 4, 1], np.int32)
    found = LabelCodes.numbered(values, codes)
    assert found.values == ["a", "b", None, "b"] and found.firsts == [0, 2, 4, 5]
    assert found.codes.tolist() == [0, -1, 1, 0, 2, 3, 1]
    both = LabelCodes.joined([found, LabelCodes.of([]), found])
    assert (both.values, both.firsts) == (["a", "b"], [0, 2])
    assert both.codes.tolist() == [0, -1, 1, 0, -1, 1, 1] * 2


def _labelled(folder: Path) -> ShardsData:
    """Two shards, whose samples have their class in a file, in a JSON, in both, or in neither."""
    folder.mkdir()
    for shard in range(2):
        files: dict[str, bytes] = {}
        for number in range(9):
            key = f"{shard}{number}"
            files[f"{key}.png"] = picture(number + 9 * shard)
            files[f"{key}.txt"] = b"text"
            if number % 3 == 0:
                files[f"{key}.cls"] = [b" cat\n", b"\xef\xbb\xbfdog", b"\xff"][number // 3]
            if number % 2 == 0:
                files[f"{key}.json"] = json.dumps({"cls": "of a json", "n": number}).encode()
        files[f"{shard}9.png"], files[f"{shard}9.cls"] = picture(90 + shard), b""
        write_tar(folder / f"{shard}.tar", files)
    return ShardsData(train=str(folder / "*.tar"), label="cls", max_skipped=1.0)


def test_labels_of_an_index_are_those_of_the_tars(tmp_path: Path) -> None:
    section = _labelled(tmp_path / "set")
    plain = open_split(section, "train")
    expected = plain.labels()
    for shard in range(2):
        write_index(tmp_path / "set" / f"{shard}.tar")
    indexed = open_split(section, "train")
    assert indexed.classes == plain.classes == ["cat", "dog", "of a json"]
    assert expected is not None and np.array_equal(indexed.labels(), expected)
    assert set(expected.tolist()) == {-1, 0, 1, 2}
    for number in range(len(plain)):
        assert indexed.name(number) == plain.name(number)


def test_a_label_that_an_index_leaves_out_is_read(tmp_path: Path) -> None:
    long = "x" * 5000
    path = write_tar(tmp_path / "t.tar", {"0.png": picture(0), "0.cls": long.encode()})
    plain = open_split(ShardsData(train=str(path)), "train")
    write_index(path)
    assert open_split(ShardsData(train=str(path)), "train").classes == plain.classes == [long]


def test_an_indexed_set_is_pickled_without_its_index(tmp_path: Path) -> None:
    files = {}
    for number in range(2000):
        files[f"{number:04d}.png"], files[f"{number:04d}.cls"] = b"no picture", b"%d" % (number % 7)
    path = write_tar(tmp_path / "t.tar", files)
    section = ShardsData(train=str(path), join="none")
    write_index(path)
    samples = open_split(section, "train")
    assert isinstance(samples, Shards)
    pickled = pickle_mapped(samples)
    labels = samples.labels()
    assert labels is not None
    assert len(pickled) - labels.nbytes < 6000  # those of a larger set are a path too
    again = pickle.loads(pickled)
    assert again.name(1234) == samples.name(1234) and again[3].label == samples[3].label
    write_tar(path, files | {"9999.png": b""})
    write_index(path)
    with pytest.raises(DataError, match=r"t\.tar\.index: changed since it was opened"):
        pickle.loads(pickled).name(0)


def test_equal_digests_are_found_as_one_by_one() -> None:
    rng = np.random.default_rng(0)
    for case in range(30):
        count = int(rng.integers(1, 60))
        digests = rng.integers(0, 256, (count, 16), np.uint8)
        for _ in range(case):
            one, other = rng.integers(0, count, 2)
            digests[one, : 16 if case % 2 else 8] = digests[other, : 16 if case % 2 else 8]
        digests[rng.integers(0, count, case // 3)] = 0
        expected = first_rows(row.tobytes() if row.any() else None for row in digests)
        low = digests.view(np.uint64)[:, 0]
        rows = repeated_numbers(low)
        assert np.array_equal(first_digests(digests[rows], rows, count), expected)


def test_rows_are_grouped_as_one_by_one() -> None:
    rng = np.random.default_rng(1)
    for case in range(40):
        count = int(rng.integers(1, 50))
        keys = rng.integers(0, 1 + case * 3, (2, count))
        found = group_rows(*keys)
        expected: dict[tuple[int, ...], list[int]] = {}
        for row in range(count):
            expected.setdefault(tuple(keys[:, row].tolist()), []).append(row)
        if len(expected) == count:
            assert found is None
            continue
        assert found is not None
        assert [found.rows(n) for n in range(len(found))] == list(expected.values())
        assert found.firsts.tolist() == [rows[0] for rows in expected.values()]


def test_pictures_are_listed_part_by_part(tmp_path: Path) -> None:
    names = ["b.png", "a/z.png", "a/b/1.png", "a/b.png", "a.png", "a!/x.png", "a/b/c/0.png"]
    names += ["ä/1.png", "Z/2.png", "a/a.png"]
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "empty").mkdir()
    found = list_pictures(tmp_path)
    assert list(found.pictures) == sorted(names, key=lambda name: name.split("/"))
    assert found.folders == ["Z", "a", "a!", "empty", "ä"]
    tops = [name.partition("/")[0] if "/" in name else None for name in found.pictures]
    assert [None if top < 0 else found.folders[top] for top in found.tops.tolist()] == tops


def test_class_folders_with_pictures_beside_them(tmp_path: Path) -> None:
    for place, number in (("b", 0), ("a", 1), ("a", 2), ("c", 3)):
        (tmp_path / place).mkdir(exist_ok=True)
        (tmp_path / place / f"{number}.png").write_bytes(picture(number))
    (tmp_path / "b.png").write_bytes(picture(9))
    samples = open_split(FolderData(train=str(tmp_path)), "train")
    assert [samples.name(n) for n in range(4)] == ["a/1.png", "a/2.png", "b/0.png", "c/3.png"]
    labels = samples.labels()
    assert samples.classes == ["a", "b", "c"] and labels is not None
    assert labels.tolist() == [0, 0, 1, 2] == [samples[n].label for n in range(4)]
    assert "1 pictures beside the class folders" in "\n".join(samples.notes(1))


def test_the_index_of_a_set_is_that_of_its_file(tmp_path: Path) -> None:
    """Sizes of pictures as they are found one by one."""
    files = {"0.png": picture(0), "0.jpg": b"xy", "1.txt": b"t", "2.webp": b"z", "2.gif": b"zz"}
    path = write_tar(tmp_path / "t.tar", files)
    index = write_index(path)
    places = [index.picture(number) for number in range(len(index))]
    expected = [0 if place is None else place[1] for place in places]
    assert index.picture_sizes().tolist() == expected == [2, 0, 1]
    assert index_path(path).is_file()
