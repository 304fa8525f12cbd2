"""Pods by load: nothing shrinks a release that runs."""

from typing import Any

import helm_python as helm
import pytest

from .conftest import ChartUnderTest

KEDA = {
    "autoscaling.enabled": True,
    "autoscaling.by": "keda",
    "autoscaling.targetWorkSeconds": 2,
    "autoscaling.keda.serverAddress": "http://prometheus:9090",
}


def test_autoscaler_owns_the_replicas(ptft_chart: ChartUnderTest) -> None:
    release = ptft_chart.render({"autoscaling.enabled": True})
    assert "replicas" not in release.get("Deployment")["spec"]
    target = release.get("HorizontalPodAutoscaler")["spec"]["scaleTargetRef"]
    assert target["name"] == release.get("Deployment")["metadata"]["name"]
    assert ptft_chart.render().get("Deployment")["spec"]["replicas"] == 2


def test_pods_come_by_what_waits(ptft_chart: ChartUnderTest) -> None:
    settings = {"autoscaling.enabled": True, "autoscaling.targetWorkSeconds": 0.25}
    release = ptft_chart.render(settings)
    spec = release.get("HorizontalPodAutoscaler")["spec"]
    work, cpu = spec["metrics"]
    assert work["pods"]["metric"] == {"name": "ptft_work_seconds"}
    assert work["pods"]["target"] == {"type": "AverageValue", "averageValue": "250m"}
    assert cpu["containerResource"]["container"] == release.server["name"]
    assert cpu["containerResource"]["target"]["averageUtilization"] == 70
    assert spec["behavior"]["scaleUp"]["stabilizationWindowSeconds"] == 0
    assert spec["behavior"]["scaleDown"]["stabilizationWindowSeconds"] == 300
    assert spec["behavior"]["scaleDown"]["policies"] == [
        {"type": "Pods", "value": 1, "periodSeconds": 60}
    ]
    assert release.find("ScaledObject") is None


def test_keda_asks_prometheus(ptft_chart: ChartUnderTest) -> None:
    release = ptft_chart.render({**KEDA, "autoscaling.keda.authentication": "prometheus"})
    assert release.find("HorizontalPodAutoscaler") is None  # KEDA makes its own
    assert "replicas" not in release.get("Deployment")["spec"]
    spec = release.get("ScaledObject")["spec"]
    (work,) = spec["triggers"]
    assert work["metadata"]["threshold"] == "2"
    assert work["authenticationRef"] == {"name": "prometheus"}
    assert spec["scaleTargetRef"]["name"] == release.get("Deployment")["metadata"]["name"]
    own = ptft_chart.render({**KEDA, "metrics.selector": 'app="embed"'}).get("ScaledObject")
    assert '{app="embed"}' in own["spec"]["triggers"][0]["metadata"]["query"]


def test_none_at_all_while_nobody_asks(ptft_chart: ChartUnderTest) -> None:
    """The first pod starts for what waits elsewhere; a second one by the service's own count."""
    zero = {"autoscaling.minReplicas": 0, "autoscaling.keda.wakeQuery": "sum(waiting)"}
    spec = ptft_chart.render({**KEDA, **zero}).get("ScaledObject")["spec"]
    work, wake = spec["triggers"]
    assert spec["minReplicaCount"] == 0
    assert wake["metadata"]["query"] == "sum(waiting)"
    assert wake["metadata"]["activationThreshold"] == "0"
    assert float(wake["metadata"]["threshold"]) > 1e6
    assert "activationThreshold" not in work["metadata"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({**KEDA, "autoscaling.keda.serverAddress": ""}, "needs autoscaling.keda.serverAddress"),
        ({**KEDA, "autoscaling.targetWorkSeconds": None}, "needs autoscaling.targetWorkSeconds"),
        ({**KEDA, "autoscaling.minReplicas": 0}, "needs autoscaling.keda.wakeQuery"),
        (
            {"autoscaling.enabled": True, "autoscaling.minReplicas": 0},
            r"autoscaling.minReplicas \(0\) needs autoscaling.by: keda",
        ),
        ({**KEDA, "serving.metrics": "off"}, "need what it counts"),
        (
            {"autoscaling.enabled": True, "resources.requests.cpu": None},
            r"PUUtilizationPercentage \(70\) is of resources.requests.cpu, which is not given",
        ),
    ],
)
def test_what_cannot_scale_is_refused(
    ptft_chart: ChartUnderTest, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(helm.HelmRenderError, match=message):
        ptft_chart.render(settings)
