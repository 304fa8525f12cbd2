"""Shards that lie elsewhere: fetched once, kept within bounds, read as if they were here."""

import multiprocessing
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
from ptft.errors import DataError, MissingExtraError, RecipeError
from ptft.recipe.check import check_data
from ptft.recipe.data import FolderData, ShardsData
from tests.support.batches import batches_of, joined, same
from tests.support.remote_shards import SHARDS, fetched, section, store
from tests.support.runs import interrupt, largest_difference, run
from tests.support.shards import picture, write_pairs, write_tar

__all__ = ["store"]  # a fixture

if TYPE_CHECKING:
    from tests.support.loopback_hub import LoopbackHub


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


def test_addresses_that_are_not_read_are_refused(store: Path) -> None:
    def told(url: str) -> str:
        data = ShardsData(train=url)
        with pytest.raises(RecipeError) as checked:
            check_data(data, "data", ("train",))
        with pytest.raises(RecipeError) as opened:
            open_split(data, "train")
        assert str(checked.value) == str(opened.value)
        return str(opened.value)

    allowed = "allowed: file://, gcs://, gs://, hf://, s3:// or a local path"
    url = "https://example.org/a.tar"
    assert told(url) == f"data.train: {url!r}: such addresses are not fetched; {allowed}"
    for url in ("github://o:r@/a.tar", "simplecache::s3://b/a.tar", "s3://b/a.tar::x", "s4://a"):
        assert told(url) == f"data.train: {url!r}: {allowed}"
    check_data(ShardsData(train="s3://bucket/{a,b}/*.tar"), "data", ("train",))
    with pytest.raises(RecipeError, match=r"data\.train: 's3://b/x': an address; .*shards alone"):
        open_split(FolderData(train="s3://b/x"), "train")
    with pytest.raises(RecipeError, match=r"data\.train: 'file://.*/t-\*\.tar': no such file"):
        open_split(ShardsData(train=f"file://{store}/t-*.tar"), "train")
    with pytest.raises(RecipeError, match=r"data\.train: 'file://.*/s-9\.tar': no such file"):
        open_split(ShardsData(train=f"file://{store}/s-{{0,9}}.tar"), "train")


@pytest.mark.skipif("s3fs" in __import__("sys").modules, reason="s3fs is here")
def test_a_store_whose_package_is_absent_names_it() -> None:
    import importlib.util

    if importlib.util.find_spec("s3fs") is not None:
        pytest.skip("s3fs is installed")
    with pytest.raises(MissingExtraError, match=r"s3fs is not installed; .*'\.\[s3\]'"):
        open_split(ShardsData(train="s3://bucket/a.tar"), "train")


def test_a_store_in_memory(store: Path, tmp_path: Path) -> None:
    memory = fsspec.filesystem("memory")
    for path in store.iterdir():
        memory.pipe(f"/bucket/{path.name}", path.read_bytes())
    try:
        data = section(store).model_copy(update={"train": "memory://bucket/s-{0..5}.tar"})
        samples = open_split(data, "train")
        assert same(
            joined(batches_of(samples)), joined(batches_of(open_split(section(store), "train")))
        )
    finally:
        memory.rm("/bucket", recursive=True)


@pytest.mark.parametrize("protocol", ["file", "memory"])
def test_another_shard_of_the_same_name_and_size_is_another(store: Path, protocol: str) -> None:
    system, url = fsspec.filesystem(protocol), f"{protocol}://{store}/s-0.tar"
    whole = (store / "s-0.tar").read_bytes()
    other = bytearray(whole)
    other[-1] ^= 1  # behind the end mark: headers, and so the index, are the same
    cache = ShardCache(str(store.parent / "cache"), 1e9)
    try:
        for content in (whole, bytes(other)):
            system.pipe(f"{store}/s-0.tar", content)
            (shard,) = list_shards([url], "data.train")
            path = cache.fetch(shard)
            assert path is not None and path.read_bytes() == content
            cache.prepare([shard], lambda _: None)
        names = sorted(path.suffix for path in cache.folder.iterdir() if path.stem[0] != "r")
        assert names.count(".tar") == names.count(".index") == 2
    finally:
        if protocol == "memory":
            system.rm(str(store), recursive=True)


def test_shards_on_the_hub(store: Path, hub: "LoopbackHub", monkeypatch: Any) -> None:
    from huggingface_hub import HfApi, HfFileSystem, constants

    from tests.support.hub_parts import TOKEN

    template = constants.HUGGINGFACE_CO_URL_TEMPLATE.replace(constants.ENDPOINT, hub.url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "ENDPOINT", hub.url)
    api = HfApi(endpoint=hub.url, token=TOKEN)
    api.create_repo("tester/shards", repo_type="model")
    for path in sorted(store.glob("s-[01].tar*")):
        api.upload_file(
            path_or_fileobj=path, path_in_repo=f"data/{path.name}", repo_id="tester/shards"
        )
    HfFileSystem.clear_instance_cache()
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    for url in ("hf://tester/shards/data/s-{0,1}.tar", "hf://tester/shards@main/data/s-*.tar"):
        samples = open_split(section(store).model_copy(update={"train": url}), "train")
        assert [samples.captions(i)[0] for i in (0, 15)] == ["grey 0", "grey 15"]
        assert samples.name(3) == "s-0.tar/003"


def test_what_is_worth_knowing_is_told(store: Path) -> None:
    samples = open_split(section(store), "train")
    (note,) = samples.notes(4)
    assert note.startswith("6 shards (0.00 GB) are fetched into ")
    assert "6 fetched shards for 8 processes that read" in samples.notes(8)[1]
    assert open_split(ShardsData(train=str(store / "*.tar")), "train").notes(8) == []


def test_a_run_on_fetched_shards_goes_on_with_another_cache(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def changes(cache: str) -> dict[str, Any]:
        data = section(store, cache).model_dump(mode="json")
        return {"data": data, "optim__samples_seen": 96, "run__checkpoint_every": 2}

    whole, cut = tmp_path / "whole", tmp_path / "cut"
    run(whole, **changes("a"))
    interrupt(monkeypatch, cut, 3, **changes("b"))
    assert run(cut, resume=True, **changes("c")).finished
    assert largest_difference(whole, cut) == 0
    assert fetched(tmp_path / "c") > 0
