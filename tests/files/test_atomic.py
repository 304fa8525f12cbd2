"""Files that ptft writes: whole, with the rights that the umask gives, through nobody's link."""

import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from ptft.artifact import write_atomic, write_json
from ptft.files.atomic import shareable
from ptft.files.tensors import write_tensors


@pytest.fixture(params=[0o022, 0o077, 0o002])
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_files_have_the_rights_that_the_umask_gives(tmp_path: Path, umask: int) -> None:
    folder = tmp_path / "shared"
    folder.mkdir()
    folder.chmod(0o777)  # of a folder that all may write to, its files are not all's to write
    write_atomic(folder / "a.txt", "a")
    write_json(folder / "b.json", {})
    write_tensors(folder / "c.safetensors", {"x": torch.zeros(2)})
    wanted = {0o666 & ~umask}
    assert {mode(path) for path in folder.iterdir()} == wanted
    private = folder / "d"
    private.touch(0o600)
    shareable(private)
    assert {mode(private)} == wanted
    inner = folder / "e"
    inner.mkdir(0o700)
    shareable(inner)
    assert mode(inner) == 0o777 & ~umask
    inner.chmod(0o2700)  # whose files are its group's
    shareable(inner)
    assert mode(inner) == 0o2777 & ~umask


def test_a_file_is_written_through_no_link(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("mine")
    target = tmp_path / "shared" / "out.txt"
    target.parent.mkdir()
    target.symlink_to(victim)
    for number in range(os.getpid() - 3, os.getpid() + 3):  # what could be foreseen once
        (target.parent / f".out.txt.{number}.partial").symlink_to(victim)
    write_atomic(target, "new")
    assert victim.read_text() == "mine" and target.read_text() == "new" and not target.is_symlink()


def test_the_name_of_an_unfinished_file_cannot_be_foreseen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names: list[str] = []
    monkeypatch.setattr("os.fsync", lambda _: names.extend(p.name for p in tmp_path.glob(".*")))
    for _ in range(2):
        write_atomic(tmp_path / "a.txt", "a")
    assert len(names) == len(set(names)) == 2
    assert all(re.fullmatch(r"\.a\.txt\.[0-9a-f]{16,}\.partial", name) for name in names)


def test_an_unfinished_file_is_a_new_one_even_where_its_name_was_foreseen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("secrets.token_hex", lambda _: "0")
    (tmp_path / ".a.txt.0.partial").write_text("of somebody who has it open")
    with pytest.raises(FileExistsError):
        write_atomic(tmp_path / "a.txt", "mine")
    assert (tmp_path / ".a.txt.0.partial").read_text() == "of somebody who has it open"
    assert not (tmp_path / "a.txt").exists()


def test_what_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "inside").touch()
    with pytest.raises(OSError):
        write_atomic(tmp_path / "out", "new")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_half_a_character_of_a_files_name_can_be_recorded(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"name": os.fsdecode(b"caf\xe9.png")})
    assert "caf\\udce9.png" in (tmp_path / "a.json").read_text()
