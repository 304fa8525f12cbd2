"""Debian's own Prometheus, for tests."""

import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from tests.serving.server import free_port

__all__ = ["Prometheus", "needs_prometheus", "needs_promtool", "running", "scraping"]

needs_prometheus = pytest.mark.skipif(
    shutil.which("prometheus") is None, reason="needs prometheus (.ci/packages.txt)"
)
needs_promtool = pytest.mark.skipif(
    shutil.which("promtool") is None, reason="needs promtool, of prometheus (.ci/packages.txt)"
)
_WAIT_S = 60


class Prometheus:
    """One that runs.

    Attributes:
        url: its address.
    """

    def __init__(self, url: str) -> None:
        self.url = url

    def ask(self, query: str) -> list[float]:
        """The values of a query, of this moment."""
        return [float(one["value"][1]) for one in self.series(query)]

    def series(self, query: str) -> list[dict[str, Any]]:
        """The same with labels (``metric``) and times.

        Raises:
            AssertionError: it was not answered.
        """
        answer = httpx.get(f"{self.url}/api/v1/query", params={"query": query})
        assert answer.status_code == 200, (query, answer.text)
        found = answer.json()
        return list(found["data"]["result"])

    def wait_for(self, query: str, least: float = 1) -> None:
        """Until a query has a value that is not below ``least``.

        Raises:
            AssertionError: it had none in time.
        """
        _until(lambda: any(value >= least for value in self.ask(query)), f"{query}: below {least}")

    def ready(self) -> bool:
        """Whether it answers queries: it listens before it does, and then says 503."""
        try:
            return httpx.get(f"{self.url}/-/ready").status_code == 200
        except httpx.TransportError:
            return False


@contextmanager
def scraping(url: str, folder: Path, **labels: str) -> Iterator[Prometheus]:
    """A Prometheus that scrapes a service each second.

    Args:
        url: of the service.
        folder: for what it keeps.
        labels: of the target.
    """
    target = {"targets": [url.removeprefix("http://")], "labels": labels}
    with running([{"job_name": "ptft", "static_configs": [target]}], folder) as prometheus:
        yield prometheus


@contextmanager
def running(
    jobs: list[dict[str, Any]], folder: Path, host: str = "127.0.0.1", port: int | None = None
) -> Iterator[Prometheus]:
    """One that scrapes each second.

    Args:
        jobs: as ``scrape_configs`` has them.
        folder: for what it keeps.
        host, port: where it listens; None: a port that is free.
    """
    config, port = folder / "prometheus.yml", port or free_port()
    scrape = {"global": {"scrape_interval": "1s"}, "scrape_configs": jobs}
    config.write_text(yaml.safe_dump(scrape))
    command = [
        "prometheus",
        f"--config.file={config}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address={host}:{port}",
    ]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    prometheus = Prometheus(f"http://{host}:{port}")
    try:
        _until(prometheus.ready, "Prometheus is not ready")
        yield prometheus
    finally:
        process.terminate()
        process.wait(30)


def _until(holds: Callable[[], bool], otherwise: str) -> None:
    deadline = time.monotonic() + _WAIT_S
    while not holds():
        assert time.monotonic() < deadline, f"{otherwise} after {_WAIT_S} s"
        time.sleep(0.2)
