"""Debian's own Prometheus scrapes the service, and its linter reads what it scrapes."""

import subprocess
from pathlib import Path

import httpx

from tests.serving.server import Server
from tests.support.prometheus import needs_prometheus, needs_promtool, scraping


@needs_prometheus
def test_it_scrapes_the_service(server: Server, tmp_path: Path) -> None:
    answer = httpx.post(f"{server.url}/v1/embed/text", json={"texts": ["a cat"]})
    assert answer.status_code == 200
    with scraping(server.url, tmp_path) as prometheus:
        prometheus.wait_for('ptft_phase_seconds_count{phase="engine"}')
        assert prometheus.ask("up") == [1.0]
        assert prometheus.ask("ptft_queue_limit_items") == [256.0]
        quantile = "histogram_quantile(0.5, ptft_phase_seconds_bucket)"
        assert len(prometheus.ask(quantile)) == 5
        assert prometheus.ask("scrape_samples_scraped")[0] > 100


@needs_promtool
def test_its_linter_has_nothing_to_say(server: Server) -> None:
    text = httpx.get(f"{server.url}/metrics").text
    done = subprocess.run(
        ["promtool", "check", "metrics"], input=text, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
