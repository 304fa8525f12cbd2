"""Digests that are made once of the same bytes, and again of any other."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ptft.artifact import hash_files, verify_files
from ptft.errors import DigestError
from ptft.files import digests


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.fixture
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The memory of digests, in a folder of the test's own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "ptft" / "held"


@pytest.fixture
def large(tmp_path: Path) -> tuple[Path, dict[str, Any]]:
    """A file that is worth remembering, changed a while ago, and its record."""
    (tmp_path / "files").mkdir()
    path = tmp_path / "files" / "a.safetensors"
    path.write_bytes(bytes(2 << 20))
    return path, hash_files(path.parent)


def _count(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    read: list[Path] = []
    plain: Callable[[Path], str] = digests.file_sha256

    def counted(path: Path) -> str:
        read.append(path)
        return plain(path)

    monkeypatch.setattr(digests, "file_sha256", counted)
    monkeypatch.setattr(digests, "CLOCK_TICK", -(10**12))  # the file was made just now
    return read


def test_unchanged_bytes_are_read_once(
    large: tuple[Path, dict[str, Any]], cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (path, files), read = large, _count(monkeypatch)
    for _ in range(3):
        verify_files(path.parent, files, remember=True)
    assert len(read) == 1
    assert cache.stat().st_mode & 0o777 == 0o700
    verify_files(path.parent, files)  # `ptft verify` reads every byte
    assert len(read) == 2


@pytest.mark.parametrize("how", ["in place", "replaced", "restored time"])
def test_changed_bytes_are_seen_though_the_rest_is_alike(
    how: str, large: tuple[Path, dict[str, Any]], cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, files = large
    _count(monkeypatch)
    verify_files(path.parent, files, remember=True)
    before = path.stat()
    if how == "replaced":
        shutil.copy(path, path.with_name("b"))
        _flip(path.with_name("b"))
        path.with_name("b").replace(path)
    else:
        _flip(path)
    if how != "in place":
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    with pytest.raises(DigestError, match="sha256"):
        verify_files(path.parent, files, remember=True)


def test_a_file_changed_a_moment_ago_is_not_remembered(
    large: tuple[Path, dict[str, Any]], cache: Path
) -> None:
    path, files = large
    verify_files(path.parent, files, remember=True)
    assert not list(cache.glob("*"))


def test_a_memory_that_others_may_write_is_not_read(
    large: tuple[Path, dict[str, Any]], cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (path, files), read = large, _count(monkeypatch)
    verify_files(path.parent, files, remember=True)
    cache.chmod(0o770)
    verify_files(path.parent, files, remember=True)
    assert len(read) == 2
    for entry in cache.glob("*"):
        entry.write_text("[" * 100_000)
    cache.chmod(0o700)
    verify_files(path.parent, files, remember=True)
    assert len(read) == 3


def test_a_memory_of_another_user_is_not_read(
    large: tuple[Path, dict[str, Any]], cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can give a folder away")
    (path, files), read = large, _count(monkeypatch)
    verify_files(path.parent, files, remember=True)
    os.chown(cache, 12345, 12345)
    verify_files(path.parent, files, remember=True)
    assert len(read) == 2


def test_a_file_that_changes_while_it_is_read_has_no_digest(
    large: tuple[Path, dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    path, files = large
    plain: Callable[[Path], str] = digests.file_sha256

    def meddled(path: Path) -> str:
        found = plain(path)  # the recorded one
        _flip(path)
        return found

    monkeypatch.setattr(digests, "file_sha256", meddled)
    with pytest.raises(DigestError, match="changed while it was read"):
        verify_files(path.parent, files)


def _link(path: Path) -> None:
    other = path.with_name("other")
    shutil.copy2(path, other)
    path.unlink()
    path.symlink_to(other)


def _away_and_back(path: Path) -> None:
    path.rename(path.with_name("away"))
    path.write_bytes(b"others")
    path.unlink()
    path.with_name("away").rename(path)


@pytest.mark.parametrize("swap", [_flip, _link, _away_and_back, Path.unlink])
def test_a_file_that_is_swapped_after_its_check_is_told(
    large: tuple[Path, dict[str, Any]], swap: Callable[[Path], None]
) -> None:
    path, files = large
    held = verify_files(path.parent, files)
    held.check_unchanged()
    swap(path)
    with pytest.raises(DigestError, match="changed between the check of its bytes and their use"):
        held.check_unchanged()
