"""The dashboard as Grafana is given it; tests.serving.test_queries asks its queries."""

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

from .conftest import ChartUnderTest

FIRST = ["Pods", "Rate", "Failed", "Denied", "p99", "Load", "Models", "Traffic"]
RATE = re.compile(r"\b(?:rate|increase|max_over_time)\(")


@pytest.fixture(scope="module")
def board(ptft_chart: ChartUnderTest) -> dict[str, Any]:
    return drawn(ptft_chart, {})


def drawn(chart: ChartUnderTest, values: dict[str, Any]) -> dict[str, Any]:
    release = chart.render({"metrics.dashboard.enabled": True, **values})
    (text,) = release.get("ConfigMap")["data"].values()
    assert not re.search(r"@\w+@", text)
    return dict(json.loads(text))


def panels(board: dict[str, Any]) -> list[dict[str, Any]]:
    return [panel for panel in board["panels"] if panel["type"] != "row"]


def targets(board: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for panel in panels(board):
        yield from panel["targets"]


def named(board: dict[str, Any], title: str) -> dict[str, Any]:
    (panel,) = (panel for panel in panels(board) if panel["title"] == title)
    return panel


def steps(panel: dict[str, Any]) -> list[float | None]:
    return [step["value"] for step in panel["fieldConfig"]["defaults"]["thresholds"]["steps"]]


def test_what_tells_whether_all_is_well_stands_first(board: dict[str, Any]) -> None:
    first = [panel for panel in panels(board) if panel["gridPos"]["y"] == 0]
    assert [panel["title"] for panel in first] == FIRST
    assert {panel["type"] for panel in first} == {"stat"}
    assert all(len(panel["title"]) <= 7 for panel in first)  # of an eighth of 1,440 pixels
    assert sum(panel["gridPos"]["w"] for panel in first) == 24
    for panel in first:  # of now: no last word of pods that have gone
        assert [target["instant"] for target in panel["targets"]] == [True], panel["title"]


def test_every_panel_says_what_it_shows(board: dict[str, Any]) -> None:
    titles = [panel["title"] for panel in panels(board)]
    assert len(titles) == len(set(titles)) >= 30
    for panel in panels(board):
        defaults = panel["fieldConfig"]["defaults"]
        assert len(panel["description"]) >= 20, panel["title"]
        assert panel["description"].endswith("."), panel["title"]
        assert defaults.get("unit") or defaults["mappings"], panel["title"]
        assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
        if panel["type"] == "stat":
            assert defaults["noValue"], panel["title"]
            assert defaults["thresholds"]["steps"], panel["title"]


def test_axes_of_a_quiet_service_end_where_its_values_may(board: dict[str, Any]) -> None:
    """Where all is zero, Grafana draws an axis of shares up to 10,000 %."""
    for panel in panels(board):
        defaults = panel["fieldConfig"]["defaults"]
        if panel["type"] == "timeseries" and defaults["unit"] == "percentunit":
            ends = [defaults.get("max"), defaults["custom"].get("axisSoftMax")]
            assert any(end is not None for end in ends), panel["title"]


def test_all_is_seen_between_two_points(board: dict[str, Any]) -> None:
    """Rates and peaks span a step, and two scrapes at least, however wide the time range is."""
    for target in targets(board):
        query = target["expr"]
        assert len(RATE.findall(query)) == query.count("[$__rate_interval]"), query
        assert target["interval"] == "30s", query
        for spiky in re.findall(r"ptft_(?:work_seconds|queue_items|memory_bytes)\{", query):
            assert f"max_over_time({spiky}" in query, query


def test_scrapes_of_a_service_monitor_are_known(ptft_chart: ChartUnderTest) -> None:
    slow = drawn(
        ptft_chart,
        {"metrics.scrape": "serviceMonitor", "metrics.serviceMonitor": {"interval": "2m"}},
    )
    assert {target["interval"] for target in targets(slow)} == {"2m"}


def test_colours_change_where_alerts_fire(ptft_chart: ChartUnderTest) -> None:
    rules = {"availability": 0.99, "latency": {"seconds": 0.5}, "queueShare": 0.6}
    board = drawn(ptft_chart, {"metrics.rules": rules})
    for title in ("Failed", "Share that failed with a 5xx"):
        assert steps(named(board, title)) == [None, pytest.approx(0.01), pytest.approx(0.144)]
    soft = named(board, "Share that failed with a 5xx")["fieldConfig"]["defaults"]["custom"]
    assert soft["axisSoftMax"] == pytest.approx(0.144)
    for title in ("p99", "Seconds to an answer"):
        assert steps(named(board, title)) == [None, 0.5]
    assert steps(named(board, "Load")) == [None, 0.6, 1]
    assert steps(named(board, "Taken of what a pod admits, at most")) == [None, 0.6]
    assert steps(named(board, "Models")) == [None, 1, 2]
