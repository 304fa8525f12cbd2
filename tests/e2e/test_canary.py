"""A tenth of the requests to another model, and then all or none."""

import time
from typing import Any

import pytest

from tests.e2e.cluster import Cluster, Refused, until
from tests.e2e.conftest import serving
from tests.e2e.figures import record


def nine(values: dict[str, Any]) -> dict[str, Any]:
    """Nine pods, rolled three at a time."""
    return {**values, "replicas": 9, "rollout": {"maxSurge": 3}}


def with_canary(values: dict[str, Any], weight: int, **more: Any) -> dict[str, Any]:
    """Nine pods, and one of the canary's."""
    canary = {"enabled": True, "weight": weight, "model": {"volume": {"subPath": "two"}}}
    return {**nine(values), "canary": {**canary, **more}}


@pytest.mark.parametrize("ending", ["promoted", "withdrawn"])
def test_a_tenth(
    placed: Cluster, values: dict[str, Any], digests: dict[str, str], ending: str
) -> None:
    alone = nine(values)
    placed.release(alone)
    with pytest.raises(Refused, match="no canary of this image and model is ready"):
        placed.release(with_canary(values, 10))
    with placed.load() as seen:
        placed.release(with_canary(values, 0))
        placed.release(with_canary(values, 10))
        time.sleep(3)
        # the share, once the weight is everybody's: of connections, which are what is divided
        with placed.load(4, pause=0, keep=0) as fresh:
            until(lambda: True, 1)
            time.sleep(30)
        if ending == "promoted":
            placed.release({**alone, "model": serving("two")})
        else:
            placed.release(alone)
    share = 100 * fresh.found["digests"].get(digests["two"], 0) / fresh.requests
    record(f"canary {ending}", seen, share=round(share, 2), of=fresh.requests)
    assert seen.failed == 0, seen.found
    assert fresh.failed == 0, fresh.found
    assert fresh.requests >= 2000
    assert abs(share - 10) <= 2
    final = "two" if ending == "promoted" else "one"
    with placed.load(4) as after:
        time.sleep(2)
    assert set(after.found["digests"]) == {digests[final]}
    assert not placed.pods("canary")


def test_blue_and_green(placed: Cluster, values: dict[str, Any], digests: dict[str, str]) -> None:
    """All requests go over at once, back at once, and over for good."""

    def green(weight: int) -> dict[str, Any]:
        canary = {"enabled": True, "replicas": 2, "model": {"volume": {"subPath": "two"}}}
        return {**values, "canary": {**canary, "weight": weight}}

    def answering() -> set[str]:
        with placed.load(4) as now:
            pass
        assert now.failed == 0, now.found
        return set(now.found["digests"])

    placed.release(values)
    with placed.load() as seen:
        answered = []
        for weight in (0, 100, 0, 100):
            placed.release(green(weight))
            answered.append(answering())
        placed.release({**green(100), "model": serving("two")})
        placed.release({**values, "model": serving("two")})
        answered.append(answering())
    record("blue and green", seen)
    names = ("one", "two", "one", "two", "two")
    assert answered == [{digests[name]} for name in names]
    assert seen.failed == 0, seen.found
    assert not placed.pods("canary")
