"""Ten upgrades with a changed model, and nobody notices."""

from typing import Any

from tests.e2e.cluster import Cluster
from tests.e2e.conftest import serving
from tests.e2e.figures import record


def test_upgrades_lose_no_request(
    placed: Cluster, values: dict[str, Any], digests: dict[str, str]
) -> None:
    placed.release(values)
    took = []
    with placed.load() as seen:
        for round_ in range(10):
            name = ("two", "three", "one")[round_ % 3]
            took.append(placed.release({**values, "model": serving(name)}))
    record("upgrades", seen, upgrades=len(took), seconds=[round(one, 1) for one in took])
    assert seen.failed == 0, seen.found
    assert set(seen.found["digests"]) == {digests[name] for name in ("one", "two", "three")}
    assert seen.requests > 1000
