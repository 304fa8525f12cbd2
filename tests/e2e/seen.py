"""A Prometheus that sees the pods of the tests."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.e2e.cluster import Cluster
from tests.support.prometheus import Prometheus, running

__all__ = ["seeing"]


@contextmanager
def seeing(
    cluster: Cluster, folder: Path, host: str, port: int | None = None
) -> Iterator[Prometheus]:
    """A Prometheus that scrapes the service's pods and the door, as they come and go.

    Args:
        folder: for what it keeps.
        host, port: where it listens; None: a port that is free.
    """
    folder.mkdir()
    places, over = folder / "targets.json", threading.Event()

    def look() -> None:
        while not over.wait(0.5):
            found = json.loads(cluster.kubectl("get", "pods", "-o", "json"))["items"]
            targets = [target(pod) for pod in found if pod["status"].get("podIP")]
            text = json.dumps([one for one in targets if one])
            beside = places.with_suffix(".new")
            beside.write_text(text)
            beside.replace(places)

    def target(pod: dict[str, Any]) -> dict[str, Any] | None:
        labels = pod["metadata"]["labels"]
        server = labels.get("app.kubernetes.io/component") == "server"
        if not server and labels.get("app") != "door":
            return None
        said = {"namespace": cluster.namespace, "pod": pod["metadata"]["name"]}
        said["job"] = "ptft" if server else "door"
        return {"targets": [f"{pod['status']['podIP']}:3000"], "labels": said}

    files = {"files": [str(places)], "refresh_interval": "1s"}
    thread = threading.Thread(target=look)
    thread.start()
    try:
        jobs = [{"job_name": "pods", "file_sd_configs": [files]}]
        with running(jobs, folder, host, port) as prometheus:
            yield prometheus
    finally:
        over.set()
        thread.join()
