"""A cache touches what it wrote and nothing else, wherever a recipe puts it."""

import json
import os
import stat
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from ptft.cli.main import app
from ptft.data.open import open_split
from ptft.data.reading.features import FeatureFile
from ptft.data.tar.remote import list_shards
from ptft.data.tar.shard_cache import ShardCache
from ptft.errors import DataError
from ptft.files.own import is_own_file, open_own
from tests.support.remote_shards import fetched, section, store

__all__ = ["store"]  # a fixture


def _backups(folder: Path) -> dict[str, bytes]:
    """What somebody keeps, under names that a cache also has."""
    folder.mkdir()
    for name in ("2024.tar", "room.lock", f"{'a' * 32}.lock"):
        (folder / name).write_bytes(b"dear to me")
    return _files(folder)


def _drop_indexes(store: Path) -> None:
    """So that shards are fetched when the set is opened."""
    for path in store.glob("*.index"):
        path.unlink()


def _files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_folder_of_something_else_is_refused_and_left_as_it_is(store: Path) -> None:
    kept = _backups(store.parent / "backups")
    _drop_indexes(store)
    with pytest.raises(DataError, match=r"no cache of ptft: it holds '2024.tar'; data.cache names"):
        open_split(section(store, "backups", cache_gb=0.00013), "train")
    assert _files(store.parent / "backups") == kept


def test_ptft_check_deletes_nothing(store: Path) -> None:
    kept = _backups(store.parent / "backups")
    _drop_indexes(store)
    recipe = store.parent / "recipe.yaml"
    recipe.write_text(
        f"name: a\nmodel: {{name: ViT-B-32}}\noptim: {{samples_seen: 8}}\n"
        f"data: {{kind: shards, train: 'file://{store}/s-*.tar', cache: {store.parent}/backups, "
        "cache_gb: 0.00013, shuffle_shards: 2}\n"
    )
    result = CliRunner().invoke(app, ["check", str(recipe)])
    assert result.exit_code != 0 and "data.cache" in str(result.exception or result.output)
    assert _files(store.parent / "backups") == kept


def test_files_of_other_names_in_a_cache_stay_when_it_is_full(store: Path) -> None:
    shards = list_shards([f"file://{store}/s-*.tar"], "data.train")
    folder = store.parent / "cache"
    cache = ShardCache(str(folder), 1.5 * shards[0].size)
    cache.fetch(shards[0])
    (folder / "mine.tar").write_bytes(b"put here later")
    (folder / f"{'b' * 32}.tar").symlink_to(folder / "mine.tar")
    os.utime(folder / "mine.tar", (1, 1))
    for shard in shards:
        cache.fetch(shard)
    assert (folder / "mine.tar").read_bytes() == b"put here later"
    assert (folder / f"{'b' * 32}.tar").is_symlink()
    assert fetched(folder) == 3, "one shard, the file and the link"


def test_a_folder_of_before_there_was_a_marker_goes_on(store: Path) -> None:
    open_split(section(store), "train")[0]
    folder = store.parent / "cache"
    (folder / ".ptft-cache").unlink()
    folder.chmod(0o755)
    there = set(_files(folder))
    open_split(section(store), "train")[0]
    assert set(_files(folder)) == there | {".ptft-cache"}
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_a_marker_of_another_kind_or_a_link_is_no_marker(store: Path) -> None:
    folder = store.parent / "cache"
    folder.mkdir()
    (folder / ".ptft-cache").write_text("ptft cache, format 1: features\n")
    with pytest.raises(DataError, match="a cache of something else"):
        open_split(section(store), "train")[0]
    other = store.parent / "other"
    other.write_text("ptft cache, format 1: shards\n")
    (folder / ".ptft-cache").unlink()
    (folder / ".ptft-cache").symlink_to(other)
    with pytest.raises(DataError, match="no cache of ptft"):
        open_split(section(store), "train")[0]


def test_locks_are_not_followed_and_never_emptied(store: Path) -> None:
    shards = list_shards([f"file://{store}/s-*.tar"], "data.train")
    folder = store.parent / "cache"
    cache = ShardCache(str(folder), 1e9)
    cache.fetch(shards[0])
    mine = store.parent / "mine"
    mine.write_bytes(b"dear to me")
    for name in ("room.lock", f"{shards[1].key}.lock"):
        (folder / name).unlink(missing_ok=True)
        (folder / name).symlink_to(mine)
        with pytest.raises(DataError, match="a link, which is not followed"):
            cache.fetch(shards[1])
        (folder / name).unlink()
    (folder / f".{shards[1].key}.tar.partial").symlink_to(mine)
    assert cache.fetch(shards[1]) is not None
    assert mine.read_bytes() == b"dear to me"


def test_a_shard_that_is_a_link_is_not_read(store: Path) -> None:
    shards = list_shards([f"file://{store}/s-*.tar"], "data.train")
    cache = ShardCache(str(store.parent / "cache"), 1e9)
    path = cache.fetch(shards[0])
    assert path is not None
    path.unlink()
    path.symlink_to(store / "s-1.tar")
    with pytest.raises(OSError, match="a link"):
        ShardCache.open(path)
    assert not cache.has(shards[0])


def test_what_another_user_owns_is_not_ours(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x")
    assert is_own_file(path)
    if os.geteuid() != 0:
        pytest.skip("only root can give a file away")
    os.chown(path, 12345, 12345)
    assert not is_own_file(path)
    with pytest.raises(PermissionError, match="belongs to another user \\(number 12345\\)"):
        open_own(path, os.O_RDWR | os.O_TRUNC)
    assert path.read_bytes() == b"x"


def test_a_folder_of_another_user_is_no_cache(store: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can give a folder away")
    folder = store.parent / "cache"
    folder.mkdir()
    os.chown(folder, 12345, 12345)
    with pytest.raises(DataError, match=r"cache: it belongs to another user.*; data\.cache names"):
        open_split(section(store), "train")[0]
    assert not list(folder.iterdir())


def test_features_of_another_user_or_behind_a_link_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "image-0"
    file = FeatureFile.create(folder, count=2, width=3, block=2, about={})
    file.write(range(2), np.zeros((2, 3), np.float32), {})
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    rows = (folder / "rows.npy").read_bytes()
    (folder / "rows.npy").rename(tmp_path / "rows.npy")
    (folder / "rows.npy").symlink_to(tmp_path / "rows.npy")
    with pytest.raises(DataError, match=r"rows\.npy: a link, .*; run\.cache names another folder"):
        FeatureFile(folder)
    (folder / "rows.npy").unlink()
    (folder / "rows.npy").write_bytes(rows)
    assert FeatureFile(folder).missing() == []
    if os.geteuid() == 0:
        os.chown(folder / "rows.npy", 12345, 12345)
        with pytest.raises(DataError, match="belongs to another user"):
            FeatureFile(folder)


def test_locks_and_reasons_of_features_follow_no_link(tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.write_bytes(b"dear to me")
    file = FeatureFile.create(tmp_path / "image-0", count=1, width=2, block=1, about={})
    (tmp_path / "image-0" / "lock-0-of-1").symlink_to(mine)
    with pytest.raises(DataError, match="a link"), file.lock(0, 1):
        pass
    assert mine.read_bytes() == b"dear to me"


@pytest.mark.parametrize("block", [0, -1, "1", None])
def test_features_that_count_in_odd_blocks_are_damaged(tmp_path: Path, block: object) -> None:
    folder = tmp_path / "image-0"
    FeatureFile.create(folder, count=1, width=2, block=1, about={})
    (folder / "about.json").write_text(json.dumps({"block": block}))
    with pytest.raises(DataError, match="block"):
        FeatureFile(folder)
