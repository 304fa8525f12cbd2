"""A HorizontalPodAutoscaler by the pods' own metric, which a metrics adapter serves.

Where the cluster serves ``custom.metrics.k8s.io`` by the rule of the chart's README (Prometheus
Adapter), and asks a Prometheus for it at PTFT_E2E_ADAPTER, an address of this machine and a port.
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

MOST = 3


@pytest.fixture
def adapted(cluster: Cluster, tmp_path: Path) -> Iterator[Cluster]:
    """A cluster whose adapter has a Prometheus to ask."""
    if not cluster.kubectl("get", "--raw", "/apis/custom.metrics.k8s.io", check=False):
        pytest.skip("no metrics adapter: the cluster does not serve custom.metrics.k8s.io")
    host, _, port = os.environ.get("PTFT_E2E_ADAPTER", "").rpartition(":")
    if not host:
        pytest.skip("PTFT_E2E_ADAPTER is not set: nobody knows where the adapter asks Prometheus")
    if shutil.which("prometheus") is None:
        pytest.skip("prometheus is not installed")
    with seeing(cluster, tmp_path / "prometheus", host, int(port)):
        yield cluster
    cluster.uninstall()


def test_several_by_the_work_that_waits_and_back(
    placed: Cluster, values: dict[str, Any], adapted: Cluster
) -> None:
    scaling = {
        "enabled": True,
        "minReplicas": 1,
        "maxReplicas": MOST,
        "targetWorkSeconds": 0.001,
        "targetCPUUtilizationPercentage": None,  # asks for a metrics server
        "scaleDown": {"stabilizationWindowSeconds": 10, "periodSeconds": 5},
    }
    placed.release({**values, "replicas": 1, "autoscaling": scaling})
    until(lambda: len(placed.ready()) == 1, 120)
    began = time.monotonic()
    with placed.load(pause=0) as seen:
        until(lambda: len(placed.ready()) == MOST, 240)
        grew = time.monotonic() - began
        time.sleep(3)
    began = time.monotonic()
    until(lambda: len(placed.ready()) == 1, 300)
    shrank = time.monotonic() - began
    took = {"to_all": round(grew, 1), "to_one": round(shrank, 1)}
    record("hpa by the pods' metric", seen, pods=MOST, seconds=took)
    assert seen.failed == 0, seen.found
