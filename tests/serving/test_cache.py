"""What was asked for before: the same bits without a tower, within its bytes."""

import base64
import gc
import tracemalloc
from typing import Any

import numpy as np
import pytest

from ptft.onnx.model import OnnxModel
from serving.cache import EmbeddingCache
from serving.settings import Settings
from tests.serving.conftest import Client
from tests.serving.scraping import scrape, values

ROW = np.arange(128, dtype=np.float32)


def test_what_was_used_longest_ago_goes_first() -> None:
    cache = EmbeddingCache(3 * 1000, "model")
    keys = [cache.key("text", bytes([n])) for n in range(5)]
    for key in keys[:3]:
        cache.put(key, ROW, tokens=7)
    assert len(cache) == 3 and cache.taken <= cache.limit
    found = cache.get(keys[0])
    assert found is not None and found.tokens == 7
    np.testing.assert_array_equal(found.embedding, ROW)
    cache.put(keys[3], ROW)
    assert [cache.get(key) is not None for key in keys] == [True, False, True, True, False]


def test_a_key_is_of_the_bytes_the_kind_and_the_model() -> None:
    cache = EmbeddingCache(1000, "a", "b")
    keys = {cache.key("text", b"x"), cache.key("image", b"x"), cache.key("text", b"y")}
    keys |= {EmbeddingCache(1000, "ab").key("text", b"x"), EmbeddingCache(9).key("text", b"x")}
    assert len(keys) == 5


def test_what_does_not_fit_is_not_kept() -> None:
    cache = EmbeddingCache(100, "model")
    cache.put(cache.key("text", b"x"), ROW)
    assert len(cache) == cache.taken == 0


def test_it_takes_no_more_than_it_says() -> None:
    rng = np.random.default_rng(0)
    tracemalloc.start()
    try:
        cache = EmbeddingCache(2 * 2**20, "model")
        for count in range(8000):
            batch = rng.normal(size=(16, 64)).astype(np.float32)
            cache.put(cache.key("text", count.to_bytes(4)), batch[3])
        del batch
        gc.collect()
        taken, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert cache.limit - 1000 < cache.taken <= cache.limit
    assert taken <= cache.limit


def test_over_http(client: Client, pictures: list[bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[int] = []
    for name in ("encode_images", "encode_texts"):
        encode = getattr(OnnxModel, name)

        def counting(model: OnnxModel, items: Any, encode: Any = encode) -> Any:
            ran.append(len(items))
            return encode(model, items)

        monkeypatch.setattr(OnnxModel, name, counting)
    images = {"images": [base64.b64encode(data).decode() for data in (*pictures[:2], b"none")]}
    with client(cache_bytes=2**20, micro_batch=16) as ask:
        first = ask.post("/v1/embed/image", json=images).json()
        texts = ask.post("/v1/embeddings", json={"input": ["a cat", "a dog"]}).json()
        ran.clear()
        assert ask.post("/v1/embed/image", json=images).json() == first
        again = ask.post("/v1/embeddings", json={"input": ["a dog", "a cat"]}).json()
        assert ran == []
        assert again["usage"] == texts["usage"] and again["usage"]["total_tokens"] > 3
        for one, other in zip(again["data"], reversed(texts["data"]), strict=True):
            assert one["embedding"] == other["embedding"]
        mixed = ask.post("/v1/embed/text", json={"texts": ["a cat", "new", "a cat"]}).json()
        assert ran == [1]
        assert mixed["results"][0]["embedding"] == texts["data"][0]["embedding"]
        classified = ask.post("/v1/classify", json=images | {"labels": ["a", "b"]}).json()
        assert ["error" in one for one in classified["results"]] == [False, False, True]
        found = scrape(ask)
        assert ask.get("/readyz").status_code == 200  # an inference all the same
        assert sum(ran) >= 3
    counted = values(found, "cache_items", "_total")
    assert counted == {"image,hit": 4, "image,miss": 2, "text,hit": 4, "text,miss": 3}
    assert values(found, "cache_bytes")[""] > 5 * 100
    assert values(found, "cache_limit_bytes") == {"": 2**20}


def test_it_is_off_by_default(client: Client) -> None:
    assert Settings(model=None).cache_bytes == 0  # type: ignore[arg-type]
    with client() as ask:
        for _ in range(2):
            ask.post("/v1/embed/text", json={"texts": ["a"]})
        assert values(scrape(ask), "cache_items", "_total") == {}
