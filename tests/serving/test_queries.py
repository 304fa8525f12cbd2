"""What the chart asks of Prometheus, asked of one that scrapes the real service."""

import json
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import helm_python as helm
import httpx
import pytest

from tests.charts.conftest import CHART, ChartUnderTest, Release
from tests.serving.server import Server, serve
from tests.support.prometheus import Prometheus, needs_prometheus, scraping

pytestmark = needs_prometheus

RELEASE = {"namespace": "prod", "job": "demo-ptft"}
OF_OTHERS = {
    *("kube_job_status_failed", "kube_job_failed", "kube_job_complete", "kube_job_created"),
}
"""Metrics of kube-state-metrics."""


@pytest.fixture(scope="module")
def release() -> Release:
    """All that asks Prometheus."""
    with helm.Chart.load(CHART) as chart:
        return ChartUnderTest(chart).render(
            {
                "metrics.rules.enabled": True,
                "metrics.dashboard.enabled": True,
                "autoscaling": {
                    "enabled": True,
                    "by": "keda",
                    "targetWorkSeconds": 2,
                    "keda": {"serverAddress": "http://prometheus:9090"},
                },
            }
        )


@pytest.fixture(scope="module")
def prometheus(
    sketched: Path, pictures: list[bytes], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Prometheus]:
    """It scrapes a service that has answered, refused and failed."""
    home = tmp_path_factory.mktemp("queries")
    settings = {"PTFT_MODEL": str(sketched), "PTFT_THREADS": "1", "PTFT_CACHE_BYTES": "1000000"}
    with (
        serve(home, settings) as server,
        scraping(server.url, home, pod="demo-ptft-1", **RELEASE) as prometheus,
    ):
        ask_everything(server, pictures)
        prometheus.wait_for("sum(ptft_requests_total)")
        ask_everything(server, pictures)  # a rate takes two scrapes that differ
        prometheus.wait_for("sum(rate(ptft_requests_total[1m])) * 60")
        prometheus.wait_for("sum(rate(ptft_rejected_total[1m])) * 60", 0.001)
        yield prometheus


def ask_everything(server: Server, pictures: list[bytes]) -> None:
    """Texts, pictures (the same ones again), what is refused, and what is not there."""
    texts = [f"a picture of {number}" for number in range(8)]
    with httpx.Client(base_url=server.url, timeout=60) as client, ThreadPoolExecutor(4) as pool:
        asked = [
            pool.submit(client.post, "/v1/embed/text", json={"texts": texts}),
            *(
                pool.submit(client.post, "/v1/embed/image", files={"images": picture})
                for picture in pictures
            ),
            pool.submit(client.post, "/v1/embed/text", json={"texts": ["a"] * 5000}),
            pool.submit(client.get, "/v1/nothing"),
        ]
        statuses = sorted(one.result().status_code for one in asked)
    assert statuses[:-2] == [200] * (len(pictures) + 1), statuses
    assert all(status >= 400 for status in statuses[-2:]), statuses


def dashboard(release: Release) -> dict[str, Any]:
    """As Grafana loads it."""
    (text,) = release.get("ConfigMap")["data"].values()
    return dict(json.loads(text))


def test_every_query_of_the_dashboard_returns_data(
    release: Release, prometheus: Prometheus
) -> None:
    board = dashboard(release)
    (selector,) = (one["query"] for one in board["templating"]["list"] if one["name"] == "selector")
    assert selector == 'namespace="prod",job="demo-ptft"'
    queries = [
        (panel["title"], target["expr"])
        for panel in board["panels"]
        for target in panel.get("targets", [])
    ]
    assert len(queries) >= 30
    empty = [
        (title, query)
        for title, query in queries
        if not prometheus.series(
            query.replace("$selector", selector).replace("$__rate_interval", "1m")
        )
    ]
    assert empty == []


def test_the_dashboard_is_one_that_grafana_can_draw(release: Release) -> None:
    board = dashboard(release)
    assert "@" not in board["title"] + board["uid"]
    ids = [panel["id"] for panel in board["panels"]]
    assert len(ids) == len(set(ids))
    places: set[tuple[int, int]] = set()
    for panel in board["panels"]:
        at = panel["gridPos"]
        assert at["x"] + at["w"] <= 24
        cells = {
            (x, y)
            for x in range(at["x"], at["x"] + at["w"])
            for y in range(at["y"], at["y"] + at["h"])
        }
        assert not cells & places, panel["title"]
        places |= cells
        labels = re.findall(r"\{\{(\w+)\}\}", json.dumps(panel.get("targets", [])))
        assert set(labels) <= {
            *("status", "route", "reason", "key", "phase", "pod", "kind", "outcome"),
            *("model", "short", "side"),
        }


def test_every_alert_asks_for_series_that_are_there(
    release: Release, prometheus: Prometheus
) -> None:
    (group,) = release.get("PrometheusRule")["spec"]["groups"]
    moved = 'ptft_drift_moved{namespace="prod",job="demo-ptft"}'
    assert prometheus.series(moved)  # not a number, for too little was asked: no alert
    for rule in group["rules"]:
        assert prometheus.series(rule["expr"]) == [], rule["alert"]
        named = set(re.findall(r"\b(?:ptft|kube)_\w+|\bup\b", rule["expr"])) - OF_OTHERS
        for name in named:
            assert prometheus.series(f'{name}{{namespace="prod",job="demo-ptft"}}'), name
        for bound in re.findall(r'le="[^"]+"', rule["expr"]):
            assert prometheus.series(f"ptft_request_seconds_bucket{{{bound}}}"), bound


def test_pods_follow_what_the_service_counts(release: Release, prometheus: Prometheus) -> None:
    (trigger,) = release.get("ScaledObject")["spec"]["triggers"]
    (value,) = prometheus.ask(trigger["metadata"]["query"])
    assert value >= 0
    other = trigger["metadata"]["query"].replace("demo-ptft", "another")
    assert prometheus.ask(other) == [0.0]  # without a pod: nothing waits, and no error
    with helm.Chart.load(CHART) as chart:
        scaled = {"enabled": True, "targetWorkSeconds": 1.5}
        hpa = ChartUnderTest(chart).render({"autoscaling": scaled}).get("HorizontalPodAutoscaler")
    pods = hpa["spec"]["metrics"][0]["pods"]
    assert pods["target"]["averageValue"] == "1500m"
    (found,) = prometheus.series(pods["metric"]["name"])
    assert found["metric"]["pod"] == "demo-ptft-1"
