"""What Prometheus is told."""

from .conftest import ChartUnderTest


def test_metrics_are_scraped_once(ptft_chart: ChartUnderTest) -> None:
    for scrape in ("annotations", "serviceMonitor", "none"):
        release = ptft_chart.render({"metrics.scrape": scrape})
        annotated = "prometheus.io/scrape" in release.template["metadata"]["annotations"]
        assert annotated is (scrape == "annotations")
        assert bool(release.find("ServiceMonitor")) is (scrape == "serviceMonitor")
