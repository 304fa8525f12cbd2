"""A worse model is refused before any pod changes."""

import time
from datetime import datetime
from typing import Any

import pytest

from tests.e2e.cluster import Cluster, Refused
from tests.e2e.conftest import serving
from tests.e2e.figures import record


def test_worse_models_are_refused(placed: Cluster, values: dict[str, Any], probe: str) -> None:
    gate = {"probe": {"configMap": probe}, "atLeast": {"top1": 0.95}, "drop": {"top1": 0.02}}
    good = {**values, "gate": gate}
    placed.release({**good, "model": serving("one")})
    before = placed.ages()
    said, took = [], []
    with placed.load() as seen:
        for name in ("two", "three", "noisy"):
            with pytest.raises(Refused) as refused:
                placed.release({**good, "model": serving(name)})
            words = str(refused.value).splitlines()
            (line,) = [one for one in words if one.startswith("ptft: refused: ")]
            said.append(line)
            took.append(_seconds(words))
        time.sleep(1)
    assert placed.ages() == before
    record("gate", seen, refused=said, pod_seconds=took)
    assert seen.failed == 0, seen.found
    for line in said:
        assert "top1 0." in line
        assert "allowed: at least 0.98, 0.02 below the live release's 1" in line
    assert max(took) < 15
    assert "refused" not in placed.test()  # helm test holds the release that runs


def _seconds(words: list[str]) -> float:
    """How long the gate's container ran."""
    line = next(one for one in words if " to 20" in one)
    began, _, rest = line.partition(" to ")
    ended = rest.partition(": ")[0]
    return (datetime.fromisoformat(ended) - datetime.fromisoformat(began)).total_seconds()
