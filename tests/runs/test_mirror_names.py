"""What a mirror on a shared disk writes: new files alone, never through what others put there."""

import secrets
from pathlib import Path

import pytest

from ptft.errors import MirrorError
from ptft.runs.mirror.store import MirrorStore


def test_an_unfinished_file_is_a_new_one_even_where_its_name_was_foreseen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine, place = tmp_path / "mine", tmp_path / "mirror"
    mine.write_bytes(b"dear to me")
    place.mkdir()
    monkeypatch.setattr(secrets, "token_hex", lambda size: "0f")
    (place / ".a.0f.partial").symlink_to(mine)
    with pytest.raises(MirrorError):
        MirrorStore(str(place)).write("a", [b"new"])
    assert mine.read_bytes() == b"dear to me" and not (place / "a").exists()


def test_the_name_of_an_unfinished_file_cannot_be_foreseen(tmp_path: Path) -> None:
    seen = []

    def pieces() -> object:
        seen.extend(path.name for path in tmp_path.iterdir())
        yield b"new"

    for _ in range(2):
        MirrorStore(str(tmp_path)).write("a", pieces())  # type: ignore[arg-type]
        (tmp_path / "a").unlink()
    assert len(set(seen)) == 2
