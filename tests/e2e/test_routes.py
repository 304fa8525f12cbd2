"""Weights and upgrades by way of a real controller, which sends each request to a pod itself.

With PTFT_E2E_GATEWAY (NAMESPACE/NAME@HOST:PORT) a Gateway that takes routes of every namespace, and
with PTFT_E2E_INGRESS (CLASS@HOST:PORT) a controller that reads the annotations of ingress-nginx;
HOST:PORT is where a pod reaches it.
"""

import json
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.e2e.cluster import Cluster, Load, until
from tests.e2e.conftest import serving
from tests.e2e.figures import record

NAME = "routes.ptft.example"
ASK = """
import json, sys, urllib.error, urllib.request
url, headers = sys.argv[1], json.loads(sys.argv[2])
body = json.dumps({"input": ["a red circle"]}).encode()
asked = urllib.request.Request(url + "/v1/embeddings", body, headers)
try:
    print(json.load(urllib.request.urlopen(asked, timeout=30))["digest"])
except (OSError, ValueError) as error:
    print(type(error).__name__, error)
"""


@dataclass(frozen=True)
class Way:
    """In by a controller.

    Attributes:
        by: ``canary.by``.
        url: of the controller, as pods reach it.
        values: the release's, which say that it is to be used.
    """

    by: str
    url: str
    values: Mapping[str, Any]
    headers: Mapping[str, str] = field(default_factory=lambda: {"host": NAME})

    def release(self, values: Mapping[str, Any], **canary: Any) -> dict[str, Any]:
        """The values of a release behind it, its canary with those given."""
        part = dict(self.values.get("canary", {}))
        return {**values, **self.values, "canary": {**part, "by": self.by, **canary}}

    def answers(self, cluster: Cluster, track: str | None = None) -> str:
        """The digest that answers one request by this way, or what was wrong."""
        headers = {**self.headers, "content-type": "application/json", **stays(track)}
        words = ["python", "-c", ASK, self.url, json.dumps(headers)]
        return cluster.kubectl("exec", cluster.ready()[0], "-c", "server", "--", *words).strip()


def stays(track: str | None) -> dict[str, str]:
    """The header of a client that stays with the canary (``always``) or without it (``never``)."""
    return {} if track is None else {"ptft-canary": track}


@pytest.fixture(params=["httpRoute", "nginx"])
def way(request: pytest.FixtureRequest, placed: Cluster) -> Iterator[Way]:
    """One by which the service can be reached, and then no release."""
    by = request.param
    variable = "PTFT_E2E_GATEWAY" if by == "httpRoute" else "PTFT_E2E_INGRESS"
    which, _, address = os.environ.get(variable, "").partition("@")
    if not address:
        pytest.skip(f"{variable} is not set: no controller that routes (docs/howto/rollout.md)")
    if by == "httpRoute":
        namespace, _, name = which.partition("/")
        parents = [{"name": name, "namespace": namespace}]
        route = {"parentRefs": parents, "hostnames": [NAME]}
        yield Way(by, f"http://{address}", {"canary": {"httpRoute": route}})
    else:
        ingress = {"enabled": True, "className": which, "hosts": [NAME]}
        yield Way(by, f"http://{address}", {"ingress": ingress})
    placed.uninstall()


def canary(weight: int) -> dict[str, Any]:
    """One pod of another model, with so many percent."""
    return {"enabled": True, "weight": weight, "model": {"volume": {"subPath": "two"}}}


def answered(seen: Load) -> set[str]:
    """The digests that did."""
    return set(seen.found["digests"])


@pytest.mark.parametrize("ending", ["promoted", "promoted in two", "withdrawn"])
def test_a_tenth(
    placed: Cluster, values: dict[str, Any], digests: dict[str, str], way: Way, ending: str
) -> None:
    one, two = digests["one"], digests["two"]
    asking: dict[str, Any] = {"url": way.url, "headers": way.headers}
    placed.release(way.release(values))
    until(lambda: way.answers(placed) == one, 60)
    with placed.load(**asking) as seen:
        placed.release(way.release(values, **canary(0)))
        until(lambda: way.answers(placed, "always") == two, 60)
        placed.release(way.release(values, **canary(10)))
        until(lambda: two in {way.answers(placed) for _ in range(10)}, 60)
        with placed.load(4, pause=0, keep=2, **asking) as share:
            time.sleep(15)
        stay = {track: {**way.headers, **stays(track)} for track in ("always", "never")}
        with (
            placed.load(2, url=way.url, headers=stay["always"]) as always,
            placed.load(2, url=way.url, headers=stay["never"]) as never,
        ):
            time.sleep(3)
        with placed.load(2, url=way.url, headers=stay["always"]) as staying:
            final, name = (one, "one") if ending == "withdrawn" else (two, "two")
            if ending == "promoted in two":  # so that nobody meets the model before it again
                placed.release(way.release({**values, "model": serving(name)}, **canary(10)))
            placed.release(way.release({**values, "model": serving(name)}))
            until(lambda: way.answers(placed, "always") == final, 60)
    with placed.load(4, **asking) as after:
        time.sleep(2)
    percent = 100 * share.found["digests"].get(two, 0) / share.requests
    figures = {"share": round(percent, 2), "of": share.requests, "stayed": staying.requests}
    record(f"canary by {way.by} {ending}", seen, **figures)
    for load in (seen, share, always, never, staying, after):
        assert load.failed == 0, load.found
    assert share.requests >= 2000
    assert abs(percent - 10) <= 2
    assert (answered(always), answered(never)) == ({two}, {one})
    if ending != "promoted":  # else the route changes before the pods do
        assert answered(staying) == {two, final}
    assert answered(after) == {final}
    assert not placed.pods("canary")


def test_upgrades(
    placed: Cluster, values: dict[str, Any], digests: dict[str, str], way: Way
) -> None:
    placed.release(way.release(values))
    until(lambda: way.answers(placed) == digests["one"], 60)
    names = ("two", "three", "one")
    with placed.load(url=way.url, headers=way.headers) as seen:
        for name in names:
            placed.release(way.release({**values, "model": serving(name)}))
    record(f"upgrades by {way.by}", seen, upgrades=len(names))
    assert seen.failed == 0, seen.found
    assert answered(seen) == {digests[name] for name in names}
