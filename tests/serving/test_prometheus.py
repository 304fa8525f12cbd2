"""Debian's own Prometheus scrapes the service, and its linter reads what it scrapes."""

import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.serving.server import Server, free_port

pytestmark = pytest.mark.skipif(
    shutil.which("prometheus") is None, reason="needs prometheus (.ci/packages.txt)"
)

_CONFIG = """
global: {scrape_interval: 1s}
scrape_configs:
  - job_name: ptft
    static_configs: [{targets: ["%s"]}]
"""


@pytest.fixture
def prometheus(server: Server, tmp_path: Path) -> Iterator[str]:
    """Its address, while it scrapes the service."""
    config, port = tmp_path / "prometheus.yml", free_port()
    config.write_text(_CONFIG % server.url.removeprefix("http://"))
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(
            [
                "prometheus",
                f"--config.file={config}",
                f"--storage.tsdb.path={tmp_path / 'data'}",
                f"--web.listen-address=127.0.0.1:{port}",
            ],
            stdout=log,
            stderr=log,
        )
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(30)


def ask(url: str, query: str) -> list[float]:
    found = httpx.get(f"{url}/api/v1/query", params={"query": query}).json()
    return [float(one["value"][1]) for one in found["data"]["result"]]


def test_it_scrapes_the_service(server: Server, prometheus: str) -> None:
    answer = httpx.post(f"{server.url}/v1/embed/text", json={"texts": ["a cat"]})
    assert answer.status_code == 200
    deadline, engine = time.monotonic() + 60, 'ptft_phase_seconds_count{phase="engine"}'
    while time.monotonic() < deadline:
        try:
            if ask(prometheus, engine):
                break
        except httpx.TransportError:  # it starts
            pass
        time.sleep(0.2)
    assert ask(prometheus, engine)[0] >= 1
    assert ask(prometheus, "up") == [1.0]
    assert ask(prometheus, "ptft_queue_limit_items") == [256.0]
    quantile = "histogram_quantile(0.5, ptft_phase_seconds_bucket)"
    assert len(ask(prometheus, quantile)) == 5
    assert ask(prometheus, "scrape_samples_scraped")[0] > 100


@pytest.mark.skipif(shutil.which("promtool") is None, reason="needs prometheus")
def test_its_linter_has_nothing_to_say(server: Server) -> None:
    text = httpx.get(f"{server.url}/metrics").text
    done = subprocess.run(
        ["promtool", "check", "metrics"], input=text, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
