"""Pipes and devices where files should be: said at once, and never waited for."""

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ptft.artifact import read_json
from ptft.data.parquet.footer import read_footer
from ptft.data.tar.index import index_tar
from ptft.errors import PtftError
from ptft.files.arrays import check_header
from ptft.files.own import open_plain
from ptft.recipe import load_foreign


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
