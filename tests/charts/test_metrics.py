"""What Prometheus is told."""

from typing import Any

import helm_python as helm
import pytest

from .conftest import ChartUnderTest


def test_metrics_are_scraped_once(ptft_chart: ChartUnderTest) -> None:
    for scrape in ("annotations", "serviceMonitor", "none"):
        release = ptft_chart.render({"metrics.scrape": scrape})
        annotated = "prometheus.io/scrape" in release.template["metadata"]["annotations"]
        assert annotated is (scrape == "annotations")
        assert bool(release.find("ServiceMonitor")) is (scrape == "serviceMonitor")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"serving.metrics": "off"}, "there is nothing to scrape; set metrics.scrape=none"),
        ({"serving.metrics": "key"}, "an annotation holds no key"),
        (
            {"serving.metrics": "key", "metrics.scrape": "serviceMonitor"},
            "needs metrics.serviceMonitor.keySecret.name",
        ),
        (
            {"serving.metrics": "off", "metrics.scrape": "none", "metrics.rules.enabled": True},
            "need what it counts",
        ),
    ],
)
def test_scraping_agrees_with_what_the_service_answers(
    ptft_chart: ChartUnderTest, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(helm.HelmRenderError, match=message):
        ptft_chart.render(settings)
    ptft_chart.render({"serving.metrics": "off", "metrics.scrape": "none"})


def test_prometheus_sends_the_key_that_it_is_given(ptft_chart: ChartUnderTest) -> None:
    settings = {
        "serving.metrics": "key",
        "metrics.scrape": "serviceMonitor",
        "metrics.serviceMonitor.keySecret": {"name": "scrape", "key": "key"},
        "metrics.serviceMonitor.relabelings": [{"action": "labeldrop", "regex": "pod"}],
    }
    (endpoint,) = ptft_chart.render(settings).get("ServiceMonitor")["spec"]["endpoints"]
    credentials = {"name": "scrape", "key": "key"}
    assert endpoint["authorization"] == {"type": "Bearer", "credentials": credentials}
    assert endpoint["relabelings"] == [{"action": "labeldrop", "regex": "pod"}]
