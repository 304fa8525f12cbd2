"""One pushed model folder serves every client: each pulls it from a Hub and embeds as ptft does."""

from collections.abc import Iterator
from itertools import product
from pathlib import Path

import pytest
from huggingface_hub import constants

from tests.clients.environments import NODE, cache_folder, find
from tests.clients.harness import CLIENTS, ENVIRONMENTS, Bench, scenes
from tests.support.hub_parts import TOKEN
from tests.support.loopback_hub import LoopbackHub

NAMES = (
    "clip",
    "dual",
    "pooled",
)  # the last of ``python -m tests.bench clients`` is too large for a test

# huggingface_hub sends LFS files to its own HTTP client in a deprecated way
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    with pytest.MonkeyPatch.context() as patch, LoopbackHub(token=TOKEN) as hub:
        patch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        yield Bench(hub, tmp_path_factory.mktemp("clients"), NAMES, scenes())


def wrong(bench: Bench, environment: str | None, cache: Path) -> list[str]:
    """What the clients of an environment do not give as ptft does."""
    clients = [client for client in CLIENTS if client.environment == environment]
    assert clients, environment
    bench.run(clients, cache)
    found = []
    for client, name in product(clients, NAMES):
        if not bench.loads(client, name):
            continue
        figures = bench.figures(client, name)
        # JavaScript's own resize differs
        image = figures.image if environment != NODE or bench.prepares else None
        near = [cosine is None or cosine >= 0.9999 for cosine in (figures.text, image)]
        if figures.error or figures.same is None or figures.same > 1e-5 or not all(near):
            found.append(f"{client.label}, {name}: {figures}")
    return found


def test_open_clip_transformers_timm_and_onnxruntime(bench: Bench, tmp_path: Path) -> None:
    assert wrong(bench, None, tmp_path) == []


def test_who_loads_what(bench: Bench) -> None:
    """All load all, but for the class that transformers lacks: its ONNX files have no class."""
    lacking = {one.label for one in CLIENTS for name in NAMES if not bench.loads(one, name)}
    assert lacking == {one.label for one in CLIENTS if one.library == "transformers"}
    assert all(bench.loads(one, name) for one in CLIENTS for name in ("clip", "dual"))


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_clients_of_other_environments(bench: Bench, environment: str) -> None:
    if find(environment, cache_folder()) is None:
        pytest.skip("its environment is not there; `make clients` makes it")
    assert wrong(bench, environment, cache_folder()) == []
