"""What a set holds: the same wherever it lies, and another when a batch would be another."""

import os
import re
import shutil
import tarfile
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from PIL import Image
from pydantic import TypeAdapter

from ptft.data import identity, open_split
from ptft.data.identity import Identity, difference, identify
from ptft.data.sources.class_captions import ClassCaptions
from ptft.recipe import DataSection

COUNT = 12


def picture(number: int) -> bytes:
    stream = BytesIO()
    Image.new("RGB", (16, 16), (number * 20, 255 - number * 20, 80)).save(stream, "BMP")
    return stream.getvalue()  # every one of the same size


def folder_with_table(place: Path) -> dict[str, Any]:
    place.mkdir()
    rows = ["file_name,text"]
    for number in range(COUNT):
        (place / f"{number}.bmp").write_bytes(picture(number))
        rows.append(f"{number}.bmp,picture {number}")
    (place / "metadata.csv").write_text("\n".join(rows))
    return {"kind": "folder", "train": str(place)}


def class_folders(place: Path) -> dict[str, Any]:
    for number in range(COUNT):
        path = place / ("cat", "dog")[number % 2] / f"{number}.bmp"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(picture(number))
    return {"kind": "folder", "train": str(place)}


def write_parquet(path: Path, pictures: list[bytes], texts: list[str], group: int) -> None:
    table = pyarrow.table({"image": pictures, "text": texts})
    pyarrow.parquet.write_table(table, path, row_group_size=group)


def parquet(place: Path) -> dict[str, Any]:
    place.mkdir()
    write_parquet(
        place / "t.parquet",
        [picture(n) for n in range(COUNT)],
        [f"picture {n}" for n in range(COUNT)],
        5,
    )
    return {"kind": "table", "train": str(place / "t.parquet")}


def write_tar(path: Path, texts: list[str], mtime: int = 0) -> None:
    with tarfile.open(path, "w") as tar:
        for number, text in enumerate(texts):
            for name, data in (
                (f"{number}.bmp", picture(number)),
                (f"{number}.txt", text.encode()),
            ):
                member = tarfile.TarInfo(name)
                member.size, member.mtime = len(data), mtime
                tar.addfile(member, BytesIO(data))


def shards(place: Path) -> dict[str, Any]:
    place.mkdir()
    write_tar(place / "a.tar", [f"picture {n}" for n in range(COUNT)])
    return {"kind": "shards", "train": str(place / "a.tar")}


KINDS = {"table": folder_with_table, "classes": class_folders, "parquet": parquet, "tar": shards}


def look(section: dict[str, Any], like: Identity | None = None, split: Any = "train") -> Identity:
    parsed: DataSection = TypeAdapter(DataSection).validate_python(section)
    return identify(open_split(parsed, split, seed=3), like)


def change(section: dict[str, Any], before: Identity) -> str | None:
    return difference(before, look(section, before))


@pytest.fixture(params=[True, False], ids=["whole", "pieces"])
def whole(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether sets are small enough for their pictures to be read whole."""
    if not request.param:
        monkeypatch.setattr(identity, "WHOLE", 0)
    return bool(request.param)


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_data_elsewhere_and_later_are_the_same(
    kind: str, tmp_path: Path, whole: bool
) -> None:
    section = KINDS[kind](tmp_path / "d")
    before = look(section)
    assert before.count == COUNT
    assert before.whole == whole
    assert len(set(before.contents.tolist())) == COUNT
    shutil.copytree(tmp_path / "d", tmp_path / "e/f")
    for path in (tmp_path / "e/f").rglob("*"):
        os.utime(path, (1, 1))
    moved = {
        **section,
        "train": section["train"].replace(str(tmp_path / "d"), str(tmp_path / "e/f")),
    }
    assert moved != section
    assert change(moved, before) is None
    (tmp_path / "d").rename(tmp_path / "gone")
    assert change(moved, before) is None, "nothing of the first place is read"


def overwrite(path: Path, data: bytes | str) -> None:
    """Other bytes with the size and the times of before."""
    state = path.stat()
    data = data.encode() if isinstance(data, str) else data
    assert len(data) == state.st_size
    path.write_bytes(data)
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))


def edit_table(place: Path, edit: Callable[[list[str]], list[str]]) -> None:
    table = place / "metadata.csv"
    table.write_text("\n".join(edit(table.read_text().splitlines())))


CHANGES: dict[str, tuple[str, Callable[[Path], object], str]] = {
    "a picture": (
        "table",
        lambda d: overwrite(d / "3.bmp", picture(3)[:-1] + b"\xff"),
        r"of 12 samples 1 changed \(first: 3.bmp\)",
    ),
    "a caption": (
        "table",
        lambda d: overwrite(
            d / "metadata.csv",
            (d / "metadata.csv").read_text().replace("picture 5", "painted 5"),
        ),
        r"of 12 samples 1 changed \(first: 5.bmp\)",
    ),
    "rows": (
        "table",
        lambda d: edit_table(d, lambda rows: [rows[0], *rows[3:]]),
        r"of 12 samples 2 gone \(first: 0.bmp\)$",
    ),
    "the order": (
        "table",
        lambda d: edit_table(d, lambda rows: [rows[0], *reversed(rows[1:])]),
        r"the order of 12 of 12 samples \(first: 0\)",
    ),
    "a file": (
        "classes",
        lambda d: (d / "cat/4.bmp").unlink(),
        r"of 12 samples 1 gone \(first: cat/4.bmp\)",
    ),
    "a class": (
        "classes",
        lambda d: (d / "cat").rename(d / "cats"),
        r"of 12 samples 6 gone \(first: cat/0.bmp\), 6 new \(first: cats/0.bmp\)",
    ),
    "a parquet": (
        "parquet",
        lambda d: write_parquet(
            d / "t.parquet",
            [picture(11 - n) for n in range(COUNT)],
            [f"picture {n}" for n in range(COUNT)],
            5,
        ),
        "changed|files",
    ),
    "a parquet's texts": (
        "parquet",
        lambda d: write_parquet(
            d / "t.parquet",
            [picture(n) for n in range(COUNT)],
            [f"picture {n // 2}" for n in range(COUNT)],
            5,
        ),
        r"11 changed \(first: t.parquet/0/1\)",
    ),
    "a tar": (
        "tar",
        lambda d: write_tar(d / "a.tar", [f"picture {n * (n != 4)}" for n in range(COUNT)]),
        r"1 changed \(first: a.tar/4\)",
    ),
}


@pytest.mark.parametrize("case", CHANGES)
def test_a_change_is_told(case: str, tmp_path: Path, whole: bool) -> None:
    kind, edit, expected = CHANGES[case]
    section = KINDS[kind](tmp_path / "d")
    before = look(section)
    edit(tmp_path / "d")
    told = change(section, before)
    assert told is not None
    assert re.search(expected, told), told


def test_what_is_written_anew_with_the_same_samples_is_the_same(tmp_path: Path) -> None:
    table, tar = parquet(tmp_path / "p"), shards(tmp_path / "s")
    before = look(table), look(tar)
    texts = [f"picture {n}" for n in range(COUNT)]
    write_parquet(tmp_path / "p/t.parquet", [picture(n) for n in range(COUNT)], texts, 4)
    write_tar(tmp_path / "s/a.tar", texts, mtime=7)
    assert change(table, before[0]) is None
    assert change(tar, before[1]) is None


def test_of_a_mixture_every_part_counts_and_of_a_part_what_is_in_it(tmp_path: Path) -> None:
    one, two = folder_with_table(tmp_path / "one"), shards(tmp_path / "two")
    mixture = {"kind": "mixture", "parts": [{"data": one, "name": "a"}, {"data": two}]}
    held = {**one, "hold_out": 0.25}
    before = look(mixture), look(held), look(held, split="val"), look({**one, "limit": 4})
    assert [found.count for found in before] == [24, 9, 3, 4]
    for number in range(COUNT):
        kept = (tmp_path / f"one/{number}.bmp").read_bytes()
        overwrite(tmp_path / f"one/{number}.bmp", picture(number)[:-1] + b"\xff")
        assert f"first: a/{number}.bmp" in str(change(mixture, before[0]))
        changed = difference(before[2], look(held, before[2], "val"))
        # a sample is in one of the two, and only that one is another
        assert (change(held, before[1]) is None) != (changed is None)
        drawn = f"{number}.bmp" in before[3].names
        assert (change({**one, "limit": 4}, before[3]) is None) != drawn
        (tmp_path / f"one/{number}.bmp").write_bytes(kept)
    assert change(mixture, before[0]) is None
    write_tar(tmp_path / "two/a.tar", ["other"] * COUNT)
    assert "12 changed (first: a.tar/0)" in str(change(mixture, before[0]))


def test_captions_of_class_names_are_what_counts(tmp_path: Path) -> None:
    parsed: DataSection = TypeAdapter(DataSection).validate_python(class_folders(tmp_path / "d"))
    samples = open_split(parsed, "train")
    one, other = (identify(ClassCaptions(samples, [text])) for text in ("a {}", "the {}"))
    assert difference(one, identify(ClassCaptions(samples, ["a {}"]))) is None
    assert "12 changed" in str(difference(one, other))


def test_drawn_samples_are_known_by_their_section_and_not_drawn(tmp_path: Path) -> None:
    scenes = {"kind": "scenes", "train": 5_000_000, "size": 32}
    before = look(scenes)
    assert (before.count, len(before.contents)) == (5_000_000, 0)
    assert change(scenes, before) is None
    assert change({**scenes, "style": "line"}, before) is not None
    assert "5,000,001 samples" in str(change({**scenes, "train": 5_000_001}, before))


def test_classes_that_no_sample_has_count_too(tmp_path: Path) -> None:
    section = class_folders(tmp_path / "d")
    before = look({**section, "classes": ["cat", "dog"]})
    assert "classes" in str(change({**section, "classes": ["cat", "dog", "emu"]}, before))


def test_a_stream_is_known_to_be_unknown(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    datasets.Dataset.from_dict({"text": ["a", "b"]}).save_to_disk(str(tmp_path / "d"))
    section = {"kind": "table", "train": str(tmp_path / "d"), "image": None}
    before = look(section)
    assert len(before.contents) == 2
    shutil.copytree(tmp_path / "d", tmp_path / "e")
    assert change({**section, "train": str(tmp_path / "e")}, before) is None
    datasets.Dataset.from_dict({"text": ["a", "c"]}).save_to_disk(str(tmp_path / "f"))
    assert change({**section, "train": str(tmp_path / "f")}, before) is not None
    assert look({**section, "streaming": True}).shape is None


def test_samples_of_one_name_are_told_apart() -> None:
    def seen(*pairs: tuple[str, int]) -> Identity:
        contents = np.array([content for _, content in pairs], np.uint64)
        return Identity(len(pairs), "", [name for name, _ in pairs], contents, True, "")

    before = seen(("a", 1), ("a", 2), ("b", 3))
    assert difference(before, seen(("a", 1), ("a", 2), ("b", 3))) is None
    told = "of 3 samples 1 gone (first: b), 1 new (first: a (3)), 1 changed (first: a (2))"
    assert difference(before, seen(("a", 1), ("a", 4), ("a", 2))) == told
