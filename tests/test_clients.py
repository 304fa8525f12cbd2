"""One pushed model folder serves every client: each pulls it from a Hub and embeds as ptft does."""

from collections.abc import Iterator
from itertools import product
from pathlib import Path

import pytest
from huggingface_hub import constants

from tests.clients.environments import NODE, cache_folder, find
from tests.clients.harness import CLIENTS, ENVIRONMENTS, Bench, scenes
from tests.hub_parts import TOKEN
from tests.loopback_hub import LoopbackHub

NAMES = ("clip", "dual")  # the third of ``python -m tests.bench clients`` is too large for a test

# huggingface_hub sends LFS files to its own HTTP client in a deprecated way
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    with pytest.MonkeyPatch.context() as patch, LoopbackHub(token=TOKEN) as hub:
        patch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        yield Bench(hub, tmp_path_factory.mktemp("clients"), NAMES, scenes())


def check(bench: Bench, environment: str | None, cache: Path) -> None:
    clients = [client for client in CLIENTS if client.environment == environment]
    bench.run(clients, cache)
    for client, name in product(clients, NAMES):
        found = bench.figures(client, name)
        assert found.error is None, found.error
        assert found.same is not None
        assert found.same <= 1e-5, (client.label, name)
        assert found.text is None or found.text >= 0.9999, (client.label, name)
        if environment != NODE or bench.prepares:  # JavaScript's own resize differs
            assert found.image is None or found.image >= 0.9999, (client.label, name)


def test_open_clip_transformers_timm_and_onnxruntime(bench: Bench, tmp_path: Path) -> None:
    check(bench, None, tmp_path)


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_clients_of_other_environments(bench: Bench, environment: str) -> None:
    if find(environment, cache_folder()) is None:
        pytest.skip("its environment is not there; `make clients` makes it")
    check(bench, environment, cache_folder())
