"""Stores that shards are fetched from: which addresses are read, and what each store tells."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import fsspec
import pytest

from ptft.data.open import open_split
from ptft.data.tar.remote import list_shards
from ptft.data.tar.shard_cache import ShardCache
from ptft.errors import MissingExtraError, RecipeError
from ptft.recipe.check import check_data
from ptft.recipe.data import FolderData, ShardsData
from tests.support.batches import batches_of, joined, same
from tests.support.remote_shards import fetched, section, store
from tests.support.runs import interrupt, largest_difference, run

if TYPE_CHECKING:
    from tests.support.loopback_hub import LoopbackHub

__all__ = ["store"]  # a fixture


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
