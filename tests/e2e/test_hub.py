"""The Hub goes away: what serves goes on, and what starts reads what the Job put on the claim.

The Hub runs where the tests do. PTFT_E2E_HOST is an address of this machine that pods reach; on a
cluster that has none the test is skipped.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ptft.hub import push_model
from tests.e2e.cluster import Cluster, Refused, until
from tests.e2e.figures import record
from tests.support.loopback_hub import LoopbackHub

REPO, TOKEN, READ = "org/birds", "hf_writes", "hf_reads"


@pytest.fixture
def hub(models: dict[str, Path]) -> Iterator[LoopbackHub]:
    """With three models, v1 to v3."""
    host = os.environ.get("PTFT_E2E_HOST")
    if host is None:
        pytest.skip("PTFT_E2E_HOST is not set: pods reach no address of this machine")
    with LoopbackHub(token=TOKEN, read_token=READ, host=host) as running:
        given = {"licence": "mit", "endpoint": running.url, "token": TOKEN}
        for at, name in enumerate(("one", "two", "three")):
            push_model(models[name], REPO, tag=f"v{at + 1}", **given)
        yield running


def test_the_hub_goes_away(
    cluster: Cluster, values: dict[str, Any], digests: dict[str, str], hub: LoopbackHub
) -> None:
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "hub"}}
    cluster.apply({**secret, "stringData": {"token": READ}})
    section = {
        "repo": REPO,
        "endpoint": hub.url,
        "extraEnv": [{"name": "HF_HUB_DISABLE_XET", "value": "1"}],
        "cache": {"enabled": True, "size": "1Gi", "accessMode": "ReadWriteOnce", "keep": 2},
        "tokenSecret": {"name": "hub", "key": "token"},
    }

    def of(revision: str, **more: Any) -> dict[str, Any]:
        return {
            **values,
            "model": {"source": "hub", "hub": {**section, "revision": revision}},
            **more,
        }

    def log() -> str:
        return cluster.kubectl("logs", "job/ptft-cache")

    cluster.release(of("v1"))
    cluster.release(of("v2"))
    before = cluster.revision()
    assert "removed" not in log()
    cluster.release(of("v3"))
    assert "org--birds@v1: removed" in log()  # two stay
    until(lambda: len(cluster.ready()) == 2, 120)
    with cluster.load() as seen:
        hub.stop()
        gone = cluster.ready()[0]
        cluster.kubectl("delete", "pod", gone)  # a pod that starts
        until(lambda: len(cluster.ready()) == 2 and gone not in cluster.ready(), 180)
        cluster.release(of("v3", podAnnotations={"changed": "yes"}))  # an upgrade
        said = log()
        with pytest.raises(Refused, match=r"cannot reach .*org--birds@v2, org--birds@v3"):
            cluster.release(of("v1"))  # what is not there
        cluster.roll_back(before)  # and the model before
    record("hub down", seen, said=said.splitlines()[0])
    assert "org--birds@v3 is there whole" in said
    assert seen.failed == 0, seen.found
    assert set(seen.found["digests"]) == {digests["three"], digests["two"]}
