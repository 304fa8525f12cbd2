"""From no pod at all: how long the first request waits, which scaling to zero costs."""

import time
from typing import Any

from tests.e2e.cluster import Cluster, until
from tests.e2e.figures import record


def test_a_cold_start(placed: Cluster, values: dict[str, Any]) -> None:
    placed.release({**values, "replicas": 1})
    took = []
    for _ in range(3):
        placed.kubectl("scale", "deployment/ptft", "--replicas=0")
        until(lambda: not placed.pods(), 90)
        began = time.monotonic()
        placed.kubectl("scale", "deployment/ptft", "--replicas=1")
        until(lambda: len(placed.ready()) == 1, 120)
        took.append(round(time.monotonic() - began, 1))
    with placed.load(2) as seen:
        time.sleep(1)
    record("cold start", seen, seconds=took)
    assert seen.failed == 0, seen.found
    assert max(took) < 60
