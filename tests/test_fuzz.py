"""A few fixed examples of every fuzzer, and that the watch sees what it is there to see."""

import io
import os
import pickle
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import strategies as st
from PIL import Image

from ptft.errors import DataError
from tests.fuzz import harness
from tests.fuzz.harness import Finding, Target, Watch, fuzz
from tests.fuzz.targets import TARGETS

_EXAMPLES = 60  # of each
_NONE: st.SearchStrategy[harness.Files] = st.just({"a": b"x"})


@pytest.mark.parametrize("name", sorted(TARGETS))
def test_a_reader_reads_or_refuses(name: str, tmp_path: Path) -> None:
    fuzz(Watch(tmp_path), TARGETS[name], _EXAMPLES)


def _wait(folder: Path) -> None:
    while True:
        pass


def _connect(folder: Path) -> None:
    with socket.socket() as stream:
        stream.connect_ex(("127.0.0.1", 9))


def _refuse(folder: Path) -> None:
    raise DataError("x" * 100_000)


@pytest.mark.parametrize(
    ("read", "said"),
    [
        (lambda folder: {}["a"], "KeyError"),
        (lambda folder: bytearray(b"x") * (700 << 20), "took"),
        (lambda folder: bytearray(1 << 45), "MemoryError"),
        (lambda folder: (folder / "b").write_text("x"), "for writing"),
        (lambda folder: (folder.parent / "beside" / "old.tar").unlink(), "beside/old.tar"),
        (lambda folder: subprocess.run(["true"], check=True), "subprocess"),
        (lambda folder: os.system("true"), "os.system"),
        (lambda folder: pickle.loads(b"cposix\nsystem\n."), "find_class"),
        (_connect, "socket.connect"),
        (_refuse, "100000 characters"),
    ],
)
def test_the_watch_sees(read: Callable[[Path], object], said: str, tmp_path: Path) -> None:
    with pytest.raises(Finding, match=said):
        Watch(tmp_path).read(Target(_NONE, read), {"a": b"x"})


def test_a_picture_of_the_most_pixels_takes_eight_bytes_of_each(tmp_path: Path) -> None:
    stream = io.BytesIO()
    Image.new("L", (14_096, 4_500)).save(stream, "GIF")
    Watch(tmp_path).read(TARGETS["picture"], {"a": stream.getvalue()})


def test_the_watch_ends_what_does_not_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(harness, "SECONDS", 0.2)
    with pytest.raises(Finding, match="still reading"):
        Watch(tmp_path).read(Target(_NONE, _wait), {"a": b"x"})


def test_the_smallest_input_of_a_finding_is_told(tmp_path: Path) -> None:
    def read(folder: Path) -> None:
        if b"z" in (folder / "a").read_bytes():
            raise ValueError

    target = Target(st.binary(max_size=40).map(lambda data: {"a": data}), read)
    watch = Watch(tmp_path)
    with pytest.raises(Finding, match="ValueError"):
        fuzz(watch, target, 5000, smallest=True)
    assert watch.last == {"a": b"z"}
