"""KEDA: from no pod to several by the work that waits, and back to none.

Where the cluster has KEDA (``kubectl get crd scaledobjects.keda.sh``), and PTFT_E2E_HOST is an
address of this machine that pods and KEDA reach, where a Prometheus runs.
"""

import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.cluster import Cluster, until
from tests.e2e.figures import record
from tests.e2e.seen import seeing
from tests.support.prometheus import Prometheus

DOOR = Path(__file__).with_name("door.py").read_text()
MOST = 3


@pytest.fixture
def prometheus(cluster: Cluster, tmp_path: Path) -> Iterator[Prometheus]:
    """One that KEDA reaches, and the door before the service."""
    host = os.environ.get("PTFT_E2E_HOST")
    if not cluster.kubectl("get", "crd", "scaledobjects.keda.sh", "-o", "name", check=False):
        pytest.skip("no KEDA: the cluster has no scaledobjects.keda.sh")
    if host is None:
        pytest.skip("PTFT_E2E_HOST is not set: pods reach no address of this machine")
    if shutil.which("prometheus") is None:
        pytest.skip("prometheus is not installed")
    port = {"port": 80, "targetPort": 3000}
    service = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "door"}}
    cluster.apply(
        cluster.runs("door", ["python", "-c", DOOR, "ptft"]),
        {**service, "spec": {"selector": {"app": "door"}, "ports": [port]}},
    )
    cluster.kubectl("wait", "--for=condition=Ready", "pod/door", "--timeout=60s")
    with seeing(cluster, tmp_path / "prometheus", host) as found:
        yield found
    cluster.kubectl("delete", "pod/door", "service/door", "--wait=false")
    cluster.uninstall()


def by_load(values: dict[str, Any], prometheus: Prometheus) -> dict[str, Any]:
    """The release that KEDA scales, quickly."""
    scaling = {
        "enabled": True,
        "by": "keda",
        "minReplicas": 0,
        "maxReplicas": MOST,
        "targetWorkSeconds": 0.001,
        "scaleDown": {"stabilizationWindowSeconds": 10, "periodSeconds": 5},
        "keda": {
            "serverAddress": prometheus.url,
            "pollingIntervalSeconds": 2,
            "cooldownSeconds": 10,
            "wakeQuery": "sum(door_waiting)",
        },
    }
    return {**values, "autoscaling": scaling}


def test_none_to_several_and_back(
    placed: Cluster, values: dict[str, Any], prometheus: Prometheus
) -> None:
    placed.release(by_load(values, prometheus))
    until(lambda: not placed.pods(), 120)  # nobody asks
    began = time.monotonic()
    with placed.load(1, url="http://door", pause=0.5) as first:
        until(lambda: len(placed.ready()) == 1, 120)
        woke = time.monotonic() - began
        time.sleep(3)
    began = time.monotonic()
    with placed.load(url="http://door", pause=0) as seen:
        until(lambda: len(placed.ready()) == MOST, 180)
        grew = time.monotonic() - began
    began = time.monotonic()
    until(lambda: not placed.pods(), 240)
    slept = time.monotonic() - began
    took = {"to_one": round(woke, 1), "to_all": round(grew, 1), "to_none": round(slept, 1)}
    first_ms = first.found["longest_ms"]
    record("keda", seen, pods=MOST, seconds=took, first_ms=first_ms, first=first.requests)
    assert first.failed == seen.failed == 0, (first.found, seen.found)
