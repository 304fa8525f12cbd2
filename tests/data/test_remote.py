"""Shards that lie elsewhere: fetched once, kept within bounds, read as if they were here."""

import multiprocessing
import os
import shutil
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import fsspec
import pytest
from fsspec.implementations.local import LocalFileSystem
from typer.testing import CliRunner

from ptft.cli.main import app
from ptft.data.open import open_split
from ptft.data.tar import shard_cache
from ptft.data.tar.index_file import index_path, write_index
from ptft.data.tar.remote import RemoteShard, list_shards
from ptft.data.tar.shard_cache import ShardCache
from ptft.errors import DataError, RecipeError
from ptft.recipe.data import ShardsData
from tests.support.batches import batches_of, joined, same
from tests.support.remote_shards import SHARDS, fetched, section, store
from tests.support.shards import picture, write_pairs, write_tar

__all__ = ["store"]  # a fixture

if TYPE_CHECKING:
    pass


def test_a_fetched_set_holds_what_the_local_one_holds(store: Path) -> None:
    local = open_split(ShardsData(train=str(store / "s-*.tar")), "train")
    samples = open_split(section(store), "train")
    assert fetched(store.parent / "cache") == 0, "the indexes are enough to open it"
    assert [samples.name(i) for i in range(48)] == [local.name(i) for i in range(48)]
    assert [samples.captions(i) for i in range(48)] == [local.captions(i) for i in range(48)]
    assert samples[7].image.tobytes() == local[7].image.tobytes()
    assert fetched(store.parent / "cache") == SHARDS
    mixed = section(store).model_copy(
        update={"train": [str(store / "s-{4,5}.tar"), f"file://{store}/s-{{0,1}}.tar"]}
    )
    both = open_split(mixed, "train")
    assert [both.captions(i)[0] for i in (0, 15, 16, 31)] == [f"grey {i}" for i in (32, 47, 0, 15)]


def test_global_batches_do_not_depend_on_who_reads(store: Path) -> None:
    samples = open_split(section(store), "train")
    alone = joined(batches_of(samples, end=144))
    assert {(skip.name, skip.fault) for skip in alone["skipped"]} == {("s-2.tar/019", "corrupt")}
    fresh = open_split(section(store, "other"), "train")
    assert same(alone, joined(batches_of(fresh, end=144, workers=2)))
    assert fetched(store.parent / "other") == SHARDS
    for world in (2, 4):
        ranks = [batches_of(samples, end=144, rank=rank, world=world) for rank in range(world)]
        assert same(alone, joined([b for step in zip(*ranks, strict=True) for b in step]))


def test_a_run_goes_on_from_any_position(store: Path) -> None:
    whole = joined(batches_of(open_split(section(store), "train"), end=144))
    for stopped in range(12, 144, 24):
        samples = open_split(section(store, f"resumed-{stopped}"), "train")
        parts = batches_of(samples, start=stopped, end=144)
        before = batches_of(samples, end=stopped)
        assert same(whole, joined(before + parts))


def test_an_epoch_is_whole_and_reads_few_shards_at_a_time(store: Path) -> None:
    (store / "s-2.tar").unlink()  # the broken sample's, so that every name is its own
    (store / "s-2.tar.index").unlink()
    samples = open_split(section(store), "train")
    names = joined(batches_of(samples, end=120, size=20))["names"]
    epochs = [names[start : start + 40] for start in (0, 40, 80)]
    for epoch in epochs:
        assert sorted(epoch) == sorted(samples.name(i) for i in range(40))
        for start in range(0, 32, 16):  # a window of two shards
            assert len({name.partition("/")[0] for name in epoch[start : start + 16]}) == 2
    assert epochs[0] != epochs[1] != epochs[2]


def test_resampling_keeps_to_the_windows_and_balancing_is_refused(store: Path) -> None:
    samples = open_split(section(store, resample="uniform"), "train")
    plain = open_split(section(store), "train")
    redrawn, once = samples.order(1), plain.order(1)
    for start in range(0, 96, 16):
        window = range(start, start + 16)
        assert {redrawn[p] for p in window} < {once[p] for p in window}
    with pytest.raises(RecipeError, match="resample: 'class': this set is read a piece at a time"):
        open_split(section(store, resample="class"), "train")


def test_the_cache_keeps_its_size_and_the_oldest_go(store: Path) -> None:
    size = (store / "s-0.tar").stat().st_size
    folder = store.parent / "small"
    cache = ShardCache(str(folder), 3.5 * size)
    shards = list_shards([f"file://{store}/s-*.tar"], "data.train")
    assert len(shards) == SHARDS
    for number, shard in enumerate(shards[:4]):
        cache.fetch(shard)
        time.sleep(0.02)  # a file system's clock
        if number == 2:
            cache.fetch(shards[0])  # opened again, it is no longer the oldest
            time.sleep(0.02)
    assert [cache.has(shard) for shard in shards] == [True, False, True, True, False, False]
    with pytest.raises(RecipeError, match=r"data\.cache_gb: 7\.168e-05: too small for 6 shards"):
        open_split(section(store, cache_gb=3.5 * size / 1e9), "train")
    samples = open_split(
        section(store, "tight", cache_gb=5.5 * size / 1e9, shuffle_shards=1), "train"
    )
    alone = joined(batches_of(samples, end=144))
    assert 1 <= fetched(store.parent / "tight") <= 5
    roomy = open_split(section(store, shuffle_shards=1), "train")
    assert same(alone, joined(batches_of(roomy, end=144)))


def test_indexes_that_nobody_has_used_of_late_go(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = store.parent / "cache"
    before = open_split(section(store), "train")
    mine = sorted(path.name for path in cache.glob("*.index"))
    others = [cache / f"{digit * 32}.index" for digit in "ab"]
    long_ago = time.time() - 7200
    for path in others:
        path.write_bytes(bytes(1000))
    os.utime(others[0], (long_ago, long_ago))
    for name in mine:
        os.utime(cache / name, (long_ago - 1, long_ago - 1))
    monkeypatch.setattr(shard_cache, "INDEX_BYTES", 1)
    open_split(section(store), "train")
    assert sorted(path.name for path in cache.glob("*.index")) == sorted([*mine, others[1].name])
    for name in mine:  # another process has let them go meanwhile
        (cache / name).unlink()
    assert [before.name(number) for number in (0, 47)] == ["s-0.tar/000", "s-5.tar/047"]


def test_shards_that_come_at_once_do_not_fill_it_beyond_its_size(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shards = list_shards([f"file://{store}/s-{{0,1}}.tar"], "data.train")
    cache = ShardCache(str(store.parent / "one"), 1.5 * shards[0].size)
    together = threading.Barrier(2)
    plain = shard_cache.download

    def meet(url: str, path: Path) -> None:
        together.wait(60)  # each has made room, and neither has come
        plain(url, path)

    monkeypatch.setattr(shard_cache, "download", meet)
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(cache.fetch, shards))
    assert fetched(store.parent / "one") == 1


def test_what_comes_next_is_fetched_before_it_is_asked_for(store: Path) -> None:
    samples = open_split(section(store), "train")
    batches_of(samples, end=1, size=1)
    until = time.monotonic() + 60
    while fetched(store.parent / "cache") < 4 and time.monotonic() < until:
        time.sleep(0.01)
    assert fetched(store.parent / "cache") == 4  # this window's two, and the next one's


class Counting(LocalFileSystem):
    """The local disk, as a slow store that keeps count."""

    protocol = "file"

    def get_file(self, path1: str, path2: str, *args: Any, **kwargs: Any) -> None:
        with (Path(path1).parent / "count").open("a") as stream:
            stream.write(f"{Path(path1).name}\n")
        time.sleep(0.1)
        super().get_file(path1, path2, *args, **kwargs)


def _fetch_all(folder: str, shards: list[RemoteShard], rank: int) -> None:
    fsspec.register_implementation("file", Counting, clobber=True)
    cache = ShardCache(folder, 1e9)
    for number in range(len(shards)):
        path = cache.fetch(shards[(number + rank) % 2])
        assert path is not None and path.stat().st_size == shards[0].size


def test_several_processes_fetch_a_shard_once(store: Path) -> None:
    shards = list_shards([f"file://{store}/s-{{0,1}}.tar"], "data.train")
    context = multiprocessing.get_context("fork")
    arguments = [(str(store.parent / "shared"), shards, rank) for rank in range(3)]
    processes = [context.Process(target=_fetch_all, args=given) for given in arguments]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0
    assert sorted((store / "count").read_text().split()) == ["s-0.tar", "s-1.tar"]


def test_without_indexes_shards_are_fetched_once_to_make_them(
    store: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "ptft")
    for path in store.glob("*.index"):
        path.unlink()
    samples = open_split(section(store), "train")
    assert len(samples) == 48
    said = caplog.text
    assert "6 shards have no index beside them" in said and "`ptft data index`" in said
    assert fetched(store.parent / "cache") == SHARDS
    for path in (store.parent / "cache").glob("*.tar"):
        path.unlink()
    assert len(open_split(section(store), "train")) == 48  # the indexes were kept
    assert fetched(store.parent / "cache") == 0 and caplog.text == said
    write_pairs(store / "s-0.tar", 11, first=60)
    assert len(open_split(section(store), "train")) == 51  # another version, another index


def test_the_command_stores_indexes_beside_shards_elsewhere(store: Path) -> None:
    index_path(store / "s-1.tar").unlink()
    shutil.copy(index_path(store / "s-4.tar"), index_path(store / "s-3.tar"))
    write_pairs(store / "s-4.tar", 200)

    def run(*options: str) -> str:
        result = CliRunner().invoke(app, ["data", "index", f"file://{store}/s-*.tar", *options])
        assert result.exit_code == 0, result.output
        return "".join(str(int("true" in line)) for line in result.stdout.splitlines())

    assert run() == "010010"  # what is absent, or of a tar of another size
    assert run() == "000000"
    with pytest.raises(DataError, match=r"s-3\.tar\.index: of another tar than file://.*s-3\.tar"):
        samples = open_split(section(store), "train")
        samples.captions(30)
    assert run("--force") == "111111"
    assert open_split(section(store), "train").captions(30) == ("grey 30",)


def test_an_index_of_another_size_is_told_when_the_set_is_opened(store: Path) -> None:
    write_pairs(store / "s-4.tar", 200)
    message = r"data\.train: file://.*s-4\.tar\.index: of a tar of \d+ bytes; the shard has \d+"
    with pytest.raises(DataError, match=message):
        open_split(section(store), "train")


def test_shards_that_are_cut_short_are_told(store: Path) -> None:
    samples = open_split(section(store), "train")
    whole = (store / "s-1.tar").read_bytes()
    (store / "s-1.tar").write_bytes(whole[:4300])  # since it was listed
    assert samples.captions(0) == ("grey 0",)
    with pytest.raises(DataError, match=r"s-1\.tar: 4300 bytes came; \d+ were listed"):
        samples.captions(8)
    (store / "s-1.tar").unlink()
    with pytest.raises(DataError, match=r"s-1\.tar: no such file"):
        samples.captions(8)
    (store / "s-1.tar").write_bytes(whole[:4300])
    index_path(store / "s-1.tar").unlink()
    message = r"data\.train: file://.*/s-1\.tar: offset \d+: cut short"
    with pytest.raises(DataError, match=message):
        open_split(section(store), "train")


def test_classes_are_known_from_the_indexes(tmp_path: Path) -> None:
    for number in range(2):
        files: dict[str, bytes] = {}
        for one in range(4):
            files |= {
                f"{number}{one}.png": picture(one),
                f"{number}{one}.cls": b"cat" if one % 2 else b"dog",
                f"{number}{one}.json": b'{"kind": "cat"}',
            }
        write_index(write_tar(tmp_path / "store" / f"s-{number}.tar", files))
    samples = open_split(section(tmp_path / "store"), "train")
    labels = samples.labels()
    assert samples.classes == ["cat", "dog"]
    assert labels is not None and labels.tolist() == [1, 0] * 4
    assert fetched(tmp_path / "cache") == 0
    with pytest.raises(DataError, match=r"data\.classes: missing"):
        open_split(section(tmp_path / "store", label="kind"), "train")
    named = open_split(section(tmp_path / "store", label="kind", classes=["cat"]), "train")
    assert named[0].label == 0 and named.labels() is None
