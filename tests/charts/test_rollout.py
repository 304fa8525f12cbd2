"""An upgrade loses no request, and says what is wrong."""

from .conftest import HUB, ChartUnderTest


def test_upgrade_loses_no_request(ptft_chart: ChartUnderTest) -> None:
    release = ptft_chart.render()
    spec = release.get("Deployment")["spec"]
    assert spec["strategy"]["rollingUpdate"] == {"maxUnavailable": 0, "maxSurge": 1}
    assert release.server["lifecycle"]["preStop"]["sleep"]["seconds"] == 5
    assert release.template["spec"]["terminationGracePeriodSeconds"] > 5
    assert release.server["readinessProbe"]["httpGet"]["path"] == "/readyz"
    assert release.server["startupProbe"]["httpGet"]["path"] == "/readyz"
    assert release.server["livenessProbe"]["httpGet"]["path"] == "/livez"
    none = ptft_chart.render({"rollout.preStopSleepSeconds": 0})
    assert "lifecycle" not in none.server


def test_gpu_is_asked_for_by_limit(ptft_chart: ChartUnderTest) -> None:
    release = ptft_chart.render({**HUB, "gpu.count": 2, "gpu.resource": "amd.com/gpu"})
    assert release.server["resources"]["limits"] == {"memory": "2Gi", "amd.com/gpu": 2}
    assert release.pull["resources"]["limits"] == {"memory": "2Gi"}
