"""A canary without weight, asked a share of what the release is asked: one that agrees is promoted,
one that does not is refused by how often its best answer was another."""

import base64
import json
from typing import Any

import pytest

from tests.e2e.cluster import Cluster, Refused
from tests.e2e.conftest import CLASSES, serving
from tests.e2e.figures import record

MOST = 0.1  # of the items, whose best class may be another


@pytest.fixture(scope="module")
def asked(placed: Cluster, pictures: dict[str, bytes]) -> str:
    """A ConfigMap of requests: the class of each picture, one at a time and four at a time."""
    images = [base64.b64encode(data).decode() for data in pictures.values()]
    some = [*([one] for one in images), *(images[at : at + 4] for at in range(0, 40, 4))]
    lines = [
        json.dumps({"path": "/v1/classify", "body": {"images": one, "labels": CLASSES, "top_k": 1}})
        for one in some
    ]
    data = {"asked.jsonl": "\n".join(lines)}
    config_map = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "asked"}}
    placed.kubectl("create", "-f", "-", given=json.dumps({**config_map, "data": data}).encode())
    return "asked"


def mirrored(values: dict[str, Any], name: str) -> dict[str, Any]:
    """A canary with that model, which is asked a fifth."""
    canary = {
        "enabled": True,
        "mirror": 0.2,
        "model": {"volume": {"subPath": name}},
        "compare": {"seconds": 20, "atMost": {"disagreement": MOST}},
    }
    return {**values, "canary": canary}


def disagreement(words: str, start: str) -> str:
    """What was said of it."""
    return next(one for one in words.splitlines() if one.startswith(start) and "disagree" in one)


def test_one_that_agrees_is_promoted(
    placed: Cluster, values: dict[str, Any], digests: dict[str, str], asked: str
) -> None:
    placed.release(values)
    with placed.load(asked=asked) as seen:
        placed.release(mirrored(values, "near"))
        said = disagreement(placed.test(), "ok ")
        only_one = set(placed_digests(placed, asked))
        placed.release({**values, "model": serving("near")})
    record("mirrored, promoted", seen, said=said)
    assert only_one == {digests["one"]}  # nobody gets the canary's answers
    assert set(seen.found["digests"]) == {digests["one"], digests["near"]}
    assert seen.failed == 0, seen.found
    assert not placed.pods("canary")


def placed_digests(cluster: Cluster, asked: str) -> dict[str, int]:
    """Which models answer now."""
    with cluster.load(2, asked=asked) as now:
        pass
    return dict(now.found["digests"])


def test_one_that_does_not_agree_is_refused(
    placed: Cluster, values: dict[str, Any], digests: dict[str, str], asked: str
) -> None:
    placed.release(values)
    with placed.load(asked=asked) as seen:
        placed.release(mirrored(values, "noisy"))
        with pytest.raises(Refused) as refused:
            placed.test()
        placed.release(values)
    line = disagreement(str(refused.value), "ptft: refused: ")
    record("mirrored, refused", seen, said=line)
    assert line.startswith("ptft: refused: disagreement 0.")
    assert line.endswith(f" items; allowed: at most {MOST}")
    assert seen.failed == 0, seen.found
    assert set(seen.found["digests"]) == {digests["one"]}
    assert not placed.pods("canary")
