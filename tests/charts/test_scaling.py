"""Pods by load: nothing shrinks a release that runs."""

from .conftest import ChartUnderTest


def test_autoscaler_owns_the_replicas(ptft_chart: ChartUnderTest) -> None:
    release = ptft_chart.render({"autoscaling.enabled": True})
    assert "replicas" not in release.get("Deployment")["spec"]
    target = release.get("HorizontalPodAutoscaler")["spec"]["scaleTargetRef"]
    assert target["name"] == release.get("Deployment")["metadata"]["name"]
    assert ptft_chart.render().get("Deployment")["spec"]["replicas"] == 2
