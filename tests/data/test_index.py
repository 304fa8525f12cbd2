"""The index beside a tar: what walking the tar gives, and never that of another tar."""

import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from ptft.cli.main import app
from ptft.data.open import open_split
from ptft.data.tar.index import TarIndex, index_tar
from ptft.data.tar.index_file import index_path, load_index, read_head, read_index, write_index
from ptft.errors import DataError
from ptft.recipe.data import ShardsData
from tests.support.shards import picture, write_pairs, write_tar

ARRAYS = ("starts", "kinds", "offsets", "sizes")


def _same(one: TarIndex, other: TarIndex) -> bool:
    return (
        (one.path, one.keys, one.extensions, one.size, one.probe)
        == (other.path, other.keys, other.extensions, other.size, other.probe)
    ) and all(np.array_equal(getattr(one, name), getattr(other, name)) for name in ARRAYS)


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_an_index_is_read_back_as_it_was_written(tmp_path: Path, form: int) -> None:
    names = ["plain.png", "plain.txt", "d" * 90 + "/" + "n" * 80 + ".webp", "ünïcode.bmp"]
    path = write_tar(tmp_path / "t.tar", {name: name.encode() for name in names}, form)
    assert read_index(path) is None
    written = write_index(path)
    first = index_path(path).read_bytes()
    found = read_index(path)
    assert found is not None and _same(found, written) and _same(found, index_tar(path))
    write_index(path)
    assert index_path(path).read_bytes() == first  # the same tar, the same bytes
    head = read_head(index_path(path))
    assert (head.count, head.size) == (3, path.stat().st_size)
    assert set(head.extensions) == {"png", "txt", "webp", "bmp"} and not head.labelled


def test_an_index_holds_the_classes(tmp_path: Path) -> None:
    files = {"0.png": picture(0), "0.cls": b"3\n", "1.png": picture(1), "2.png": picture(2)}
    path = write_tar(tmp_path / "t.tar", {**files, "2.cls": b"\xff"})
    write_index(path)
    found = read_index(path)
    assert found is not None and found.labels == ["3", "", ""]
    assert read_head(index_path(path)).labelled
    assert index_tar(path).labels is None  # walking for local use reads no data


def test_a_set_with_indexes_is_the_one_without(tmp_path: Path) -> None:
    for number in range(2):
        write_pairs(tmp_path / f"{number}.tar", 4, first=number * 4)
    plain = open_split(ShardsData(train=str(tmp_path / "*.tar")), "train")
    write_index(tmp_path / "1.tar")
    indexed = open_split(ShardsData(train=str(tmp_path / "*.tar")), "train")
    assert [indexed.name(i) for i in range(8)] == [plain.name(i) for i in range(8)]
    assert [indexed.captions(i) for i in range(8)] == [plain.captions(i) for i in range(8)]


def test_the_index_of_another_tar_is_refused(tmp_path: Path) -> None:
    path = write_pairs(tmp_path / "t.tar", 5)
    write_index(path)
    write_pairs(path, 30)
    with pytest.raises(DataError, match=r"data\.train: .*t\.tar\.index: of a tar of \d+ bytes; t"):
        open_split(ShardsData(train=str(path)), "train")
    write_pairs(path, 5)
    write_index(path)
    size = path.stat().st_size
    for count, first in [(9, 0), (5, 1)]:  # more in the padding, or others
        write_pairs(path, count, first=first)
        assert path.stat().st_size == size
        with pytest.raises(DataError, match=r"t\.tar\.index: of another tar than t\.tar; `ptft"):
            read_index(path)


def test_a_broken_index_is_told(tmp_path: Path) -> None:
    path = write_pairs(tmp_path / "t.tar", 5)
    write_index(path)
    data = index_path(path).read_bytes()

    def message(changed: bytes) -> str:
        index_path(path).write_bytes(changed)
        with pytest.raises(DataError) as caught:
            read_index(path)
        return str(caught.value)

    assert "no index of a tar" in message(data[: len(data) // 2])
    assert "no index of a tar" in message(b"")
    assert "format" in message(data.replace(b"ptft-tar-index-1", b"ptft-tar-index-9"))
    assert "do not fit" in message(data.replace(rb"\"count\": 5", rb"\"count\": 6"))
    first, beyond = (512).to_bytes(8, "little"), (1 << 40).to_bytes(8, "little")
    assert first in data and "do not fit" in message(data.replace(first, beyond))


def test_the_command_writes_what_is_missing_or_does_not_fit(tmp_path: Path) -> None:
    for number in range(3):
        write_pairs(tmp_path / f"{number}.tar", number + 1)
    write_index(tmp_path / "0.tar")
    write_index(tmp_path / "1.tar")
    write_pairs(tmp_path / "1.tar", 7)

    def run(*arguments: str) -> list[tuple[str, int, bool]]:
        result = CliRunner().invoke(app, ["data", "index", str(tmp_path / "*.tar"), *arguments])
        assert result.exit_code == 0, result.output
        lines = [json.loads(line) for line in result.stdout.splitlines()]
        return [(Path(line["index"]).name, line["samples"], line["written"]) for line in lines]

    names = [f"{number}.tar.index" for number in range(3)]
    counts = [1, 7, 3]
    assert run() == list(zip(names, counts, [False, True, True], strict=True))
    assert run() == list(zip(names, counts, [False] * 3, strict=True))
    assert run("--force") == list(zip(names, counts, [True] * 3, strict=True))
    assert len(load_index(tmp_path / "1.tar.index", tmp_path / "1.tar")) == 7
