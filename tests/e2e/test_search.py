"""A Job embeds the pictures of a claim with the release's own model, and the service searches what
it wrote: a new index comes in with the next pods."""

import base64
from pathlib import Path
from typing import Any

from tests.e2e.cluster import Cluster, until
from tests.e2e.figures import record


def embedded(cluster: Cluster, name: str) -> str:
    """Start what the CronJob would; what it said."""
    cluster.kubectl("create", "job", name, "--from=cronjob/ptft-embed")
    status = cluster.ended(name, 180)
    said = cluster.kubectl("logs", f"job/{name}")
    assert status.get("succeeded") == 1, said
    return said


def test_a_corpus_is_embedded_and_searched(
    placed: Cluster,
    values: dict[str, Any],
    digests: dict[str, str],
    pictures: dict[str, bytes],
    tmp_path: Path,
) -> None:
    names = list(pictures)
    for name in names[:-1]:
        (tmp_path / name).write_bytes(pictures[name])
    placed.put({"pictures": tmp_path}, "corpus")
    resources = values["resources"]
    embed = {"enabled": True, "schedule": "0 3 1 1 *", "claim": "corpus", "resources": resources}
    without = {**values, "jobs": {"embed": embed}}
    searching = {**without, "search": {"claim": "corpus", "subPath": "index"}}

    def nearest(name: str) -> str:
        query = {"query": {"image": base64.b64encode(pictures[name]).decode()}, "k": 1}
        answer = placed.ask("/v1/search", query)
        assert answer["digest"] == digests["one"]
        return str(answer["results"][0]["name"])

    placed.release(without)
    with placed.load() as seen:
        first = embedded(placed, "embed-1")
        placed.release(searching)
        assert [nearest(name) for name in names[:3]] == names[:3]
        assert nearest(names[-1]) != names[-1]
        (tmp_path / names[-1]).write_bytes(pictures[names[-1]])
        placed.put({"pictures": tmp_path}, "corpus")
        embedded(placed, "embed-2")
        placed.release({**searching, "podAnnotations": {"index": "2"}})
        until(lambda: nearest(names[-1]) == names[-1], 30)
    record("search", seen, said=first.splitlines()[-1])
    assert f"{len(names) - 1} pictures" in first
    assert seen.failed == 0, seen.found
