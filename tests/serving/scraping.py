"""What /metrics has, as the parser of OpenMetrics reads it."""

import httpx
from prometheus_client import Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families
from starlette.testclient import TestClient

__all__ = ["scrape", "values"]

OPENMETRICS = {"accept": "application/openmetrics-text; version=1.0.0"}


def values(families: dict[str, Metric], family: str, sample: str = "") -> dict[str, float]:
    """The samples of a family, by their labels."""
    return {
        ",".join(one.labels.values()): one.value
        for one in families[f"ptft_{family}"].samples
        if one.name == f"ptft_{family}{sample}"
    }


def scrape(ask: TestClient | httpx.Client) -> dict[str, Metric]:
    answer = ask.get("/metrics", headers=OPENMETRICS)
    assert answer.headers["content-type"].startswith("application/openmetrics-text; version=1.0.0")
    assert answer.text.endswith("# EOF\n")
    return {family.name: family for family in text_string_to_metric_families(answer.text)}
