"""The Hub goes away: what serves goes on, and what starts takes the model from the cache.

The Hub runs where the tests do. PTFT_E2E_HOST is an address of this machine that pods reach; on a
cluster that has none the test is skipped.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ptft.hub import push_model
from tests.e2e.cluster import Cluster, until
from tests.e2e.figures import record
from tests.support.loopback_hub import LoopbackHub

REPO, TOKEN, READ = "shop/birds", "hf_writes", "hf_reads"
CACHE = {
    "apiVersion": "v1",
    "kind": "PersistentVolumeClaim",
    "metadata": {"name": "cache"},
    "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
}


@pytest.fixture
def hub(models: dict[str, Path]) -> Iterator[LoopbackHub]:
    """With ``one`` as v1."""
    host = os.environ.get("PTFT_E2E_HOST")
    if host is None:
        pytest.skip("PTFT_E2E_HOST is not set: pods reach no address of this machine")
    with LoopbackHub(token=TOKEN, read_token=READ, host=host) as running:
        push_model(models["one"], REPO, tag="v1", licence="mit", endpoint=running.url, token=TOKEN)
        yield running


def test_the_hub_goes_away(cluster: Cluster, values: dict[str, Any], hub: LoopbackHub) -> None:
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "hub"}}
    cluster.apply(CACHE, {**secret, "stringData": {"token": READ}})
    quiet = [{"name": "HF_HUB_DISABLE_XET", "value": "1"}]
    section = {"repo": REPO, "revision": "v1", "endpoint": hub.url, "extraEnv": quiet}
    section |= {"cacheClaim": "cache", "tokenSecret": {"name": "hub", "key": "token"}}
    cluster.release({**values, "model": {"source": "hub", "hub": section}})
    until(lambda: len(cluster.ready()) == 2, 120)
    with cluster.load() as seen:
        hub.stop()
        gone = cluster.ready()[0]
        cluster.kubectl("delete", "pod", gone)
        until(lambda: len(cluster.ready()) == 2 and gone not in cluster.ready(), 180)
    record("hub down", seen)
    assert seen.failed == 0, seen.found
