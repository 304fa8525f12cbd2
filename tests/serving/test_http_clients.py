"""The clients that people have ask a running service, and have the checkpoint's embeddings."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from ptft.artifact import ModelInfo
from ptft.model import DualEncoder
from tests.clients.environments import cache_folder, find
from tests.clients.http_harness import (
    HTTP_CLIENTS,
    HTTP_ENVIRONMENT,
    HTTP_SETTINGS,
    TEXTS,
    Asking,
)
from tests.docs.pages import ELSEWHERE, fences, pages
from tests.serving.conftest import checkpoint_images, checkpoint_texts
from tests.serving.server import serve_plain

QUICK = ("openai", "infinity_generated", "vllm", "jina", "cohere", "immich", "generated")


@pytest.fixture(scope="module")
def asking(
    folder: Path,
    info: ModelInfo,
    model: DualEncoder,
    pictures: list[bytes],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Asking]:
    home = tmp_path_factory.mktemp("http")
    expected = checkpoint_texts(model, TEXTS), checkpoint_images(model, pictures[:3])
    with serve_plain(home, {"PTFT_MODEL": str(folder), **HTTP_SETTINGS}) as server:
        yield Asking(server.url, (info.name, info.embed_dim), *expected, pictures[:3], home)


def test_our_own(asking: Asking) -> None:
    assert asking.ours().good
    assert asyncio.run(asking.ours_async()).good


@pytest.fixture(scope="module")
def environment() -> Path:
    found = find(HTTP_ENVIRONMENT, cache_folder())
    if found is None:
        pytest.skip("its environment is not there; `make clients` makes it")
    return found


def test_those_of_others(asking: Asking, environment: Path) -> None:
    """Those that are quick; ``python -m tests.bench clients_http`` has all."""
    assert set(QUICK) <= set(HTTP_CLIENTS)
    found = asking.run(QUICK, environment)
    wrong = [f"{name}: {one.error or one}" for name, one in found.items() if not one.good]
    assert not wrong, "\n".join(wrong)
    assert all(one.text is not None for one in found.values())


def test_what_the_documents_show(asking: Asking, environment: Path) -> None:
    shown = [f.text for page in pages() for f in fences(page) if ELSEWHERE in f.marks]
    printed = asking.run_text("\n".join(shown), environment).split()
    assert [*printed[:1], *printed[2:5], *printed[6:]] == ["2", "24", "24", "24", "1", "1", "2"]
