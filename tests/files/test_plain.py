"""Pipes and devices where files should be: said at once, and never waited for."""

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ptft.artifact import file_sha256, read_json, verify_files
from ptft.data.parquet.footer import read_footer
from ptft.data.tar.index import index_tar
from ptft.errors import ArtifactError, DigestError, PtftError
from ptft.files.arrays import check_header
from ptft.files.own import check_filled, copy_plain, open_plain
from ptft.hub.opened import open_files
from ptft.recipe import load_foreign
from ptft.runs.mirror.snapshot import take_snapshot


@pytest.fixture
def soon() -> Iterator[None]:
    """A test that waits for a pipe ends with an error of its own."""

    def ring(*_: object) -> None:
        raise AssertionError("it waits")

    before = signal.signal(signal.SIGALRM, ring)
    signal.alarm(20)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize("kind", ["pipe", "device"])
@pytest.mark.parametrize("read", [read_json, check_header, read_footer, index_tar, load_foreign])
def test_what_is_no_plain_file_is_refused_at_once(
    read: Callable[[Path], object], kind: str, tmp_path: Path, soon: None
) -> None:
    path = tmp_path / "a.yaml"
    if kind == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to("/dev/zero")
    with pytest.raises((PtftError, OSError)) as caught:
        read(path)
    assert "not a plain file" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_is_read_and_a_folder_is_one(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    with open_plain(tmp_path / "a") as stream:
        assert stream.read() == b"abc"
    with pytest.raises(IsADirectoryError):
        open_plain(tmp_path)


HOLES = r"8796093022208 bytes of which \d+ are there, the others holes"


@pytest.fixture
def sparse(tmp_path: Path) -> Path:
    """A folder with a file of eight terabytes that takes four kilobytes of the disk, and an honest
    header."""
    (tmp_path / "folder").mkdir()
    path = tmp_path / "folder" / "model.safetensors"
    header = b'{"a":{"dtype":"U8","shape":[%d],"data_offsets":[0,%d]}}'
    left = (8 << 40) - 8 - 71
    text = (header % (left, left)).ljust(71)
    path.write_bytes((len(text).to_bytes(8, "little") + text).ljust(4096, b"\1"))
    try:
        os.truncate(path, 8 << 40)
        with path.open("rb") as stream:
            if os.lseek(stream.fileno(), 0, os.SEEK_HOLE) > 4096:
                pytest.skip("the disk knows no holes")
    except OSError:
        pytest.skip("the disk holds no file of that size")
    return path.parent


def read_of_push(folder: Path) -> None:
    with open_files(folder, ["model.safetensors"], {}):
        pass


READ: dict[str, tuple[Callable[[Path], object], type[Exception]]] = {
    "hash": (lambda folder: file_sha256(folder / "model.safetensors"), OSError),
    "hold": (
        lambda folder: verify_files(
            folder, {"model.safetensors": {"sha256": "0" * 64, "size": 8 << 40}}
        ),
        DigestError,
    ),
    "load": (lambda folder: check_header(folder / "model.safetensors"), ArtifactError),
    "push": (read_of_push, ArtifactError),
    "mirror": (take_snapshot, OSError),
    "copy": (lambda folder: copy_plain(folder / "model.safetensors", folder / "copy"), OSError),
}


@pytest.mark.parametrize("how", READ)
def test_a_size_that_is_nothing_but_holes_is_refused_at_once(
    how: str, sparse: Path, soon: None
) -> None:
    read, error = READ[how]
    with pytest.raises(error, match=HOLES):
        read(sparse)


def test_a_file_with_a_few_holes_is_one(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"abc")
    os.truncate(path, 1 << 30)
    with open_plain(path) as stream:
        check_filled(stream.fileno(), path)
        assert stream.read(4) == b"abc\0"


def test_a_copy_is_of_a_plain_file_of_its_kind(tmp_path: Path) -> None:
    (tmp_path / "key").write_bytes(b"-----BEGIN PRIVATE KEY-----")
    (tmp_path / "link").symlink_to("key")
    os.mkfifo(tmp_path / "pipe")
    for name in ("link", "pipe"):
        with pytest.raises(OSError):
            copy_plain(tmp_path / name, tmp_path / "copy")
    with pytest.raises(OSError, match="not a file of its kind"):
        copy_plain(tmp_path / "key", tmp_path / "copy", begins=b"\x89PNG")
    assert not (tmp_path / "copy").exists()
    copy_plain(tmp_path / "key", tmp_path / "copy", begins=b"-----")
    assert (tmp_path / "copy").read_bytes() == (tmp_path / "key").read_bytes()
