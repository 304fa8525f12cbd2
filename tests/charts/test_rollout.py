"""An upgrade loses no request, and says what is wrong."""

from pathlib import Path
from typing import Any

import helm_python as helm
import pytest

from serving.settings import Settings, read_settings

from .conftest import CHART, HUB, ChartUnderTest, Release, environment, named, read_values


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


def test_why_a_pod_ended_is_said(ptft_chart: ChartUnderTest) -> None:
    for pod in ptft_chart.render(HUB).pods:
        for container in [*pod.get("initContainers", []), *pod["containers"]]:
            assert container["terminationMessagePolicy"] == "FallbackToLogsOnError"


def test_a_hung_pod_goes_soon_and_a_failed_rollout_before_helm_gives_up(
    ptft_chart: ChartUnderTest,
) -> None:
    release = ptft_chart.render()
    liveness = release.server["livenessProbe"]
    hangs = liveness["periodSeconds"] * liveness["failureThreshold"]
    hang_s = Settings(model=Path()).hang_s
    assert hang_s < hangs  # first the service ends by itself, and says why
    assert hangs + liveness["timeoutSeconds"] + liveness["terminationGracePeriodSeconds"] <= 60
    assert release.get("Deployment")["spec"]["progressDeadlineSeconds"] < 300  # helm --timeout
    startup = release.server["startupProbe"]
    assert startup["periodSeconds"] == 1
    readiness = release.server["readinessProbe"]
    assert readiness["periodSeconds"] * readiness["failureThreshold"] <= 2


def test_where_a_quota_asks_for_cpu_limits_every_container_has_one(
    ptft_chart: ChartUnderTest,
) -> None:
    for settings in ({}, HUB):
        open_ = ptft_chart.render(settings)
        assert all("cpu" not in limits for limits in _limits(open_))
        bound = ptft_chart.render({**settings, "resources.limits.cpu": 2})
        assert all("cpu" in limits for limits in _limits(bound))


def _limits(release: Release) -> list[dict[str, Any]]:
    return [
        container["resources"]["limits"]
        for pod in release.pods
        for container in [*pod.get("initContainers", []), *pod["containers"]]
    ]


def test_what_a_user_adds_is_restricted_too(ptft_chart: ChartUnderTest) -> None:
    one = {"name": "audit", "image": "audit:1", "runAsUser": 1000}
    first = {**one, "name": "first"}
    release = ptft_chart.render({**HUB, "sidecars": [one], "initContainers": [first]})
    for kind, name in (("containers", "audit"), ("initContainers", "first")):
        added = named(release.template["spec"][kind], name)
        ours = release.server if kind == "containers" else release.pull
        assert added["securityContext"] == {**ours["securityContext"], "runAsUser": 1000}
        assert "runAsUser" not in added
    order = [one["name"] for one in release.template["spec"]["initContainers"]]
    assert order == ["pull", "first"]  # the model is there


def test_labels_and_annotations_reach_everything(ptft_chart: ChartUnderTest) -> None:
    settings = {
        **read_values(CHART / "ci" / "hardened-values.yaml"),
        "commonLabels": {"team": "search"},
        "commonAnnotations": {"contact": "search"},
        "extraObjects": [],
    }
    release = ptft_chart.render(values=settings)
    for one in release.documents:
        assert one["metadata"]["labels"]["team"] == "search", one["kind"]
        assert one["metadata"]["annotations"]["contact"] == "search", one["kind"]
    assert release.template["metadata"]["labels"]["team"] == "search"
    selector = release.get("Deployment")["spec"]["selector"]["matchLabels"]
    assert "team" not in selector  # which cannot be changed


def test_version_is_that_of_the_image(ptft_chart: ChartUnderTest) -> None:
    digest = "sha256:" + "a" * 64
    for settings, version in (
        ({}, "0.1.0"),
        ({"image.tag": "0.2.0-gpu"}, "0.2.0-gpu"),
        ({"image.digest": digest}, "sha256-" + "a" * 12),
        ({"image.tag": "0.2.0", "image.digest": digest}, "0.2.0"),
    ):
        release = ptft_chart.render(settings)
        labels = release.get("Deployment")["metadata"]["labels"]
        assert labels["app.kubernetes.io/version"] == version
        assert release.notes.startswith(f"ptft {version} serves")
        # a Deployment's selector and its pods do not follow the version
        assert "app.kubernetes.io/version" not in release.template["metadata"]["labels"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"resources.requests.memory": "3Gi"},
            r"resources.limits.memory \(2Gi\) must not be below resources.requests.memory \(3Gi\)",
        ),
        ({"resources.requests.memory": "2148M"}, r"limits.memory \(2Gi\) must not be below"),
        ({"resources.limits.cpu": "900m"}, r"limits.cpu \(900m\) must not be below"),
        ({"rollout.terminationGracePeriodSeconds": 20}, r"\(20\) must be above .* \(311\.25\)"),
        ({"rollout.preStopSleepSeconds": 40}, r"\(330\) must be above .* \(346\.25\)"),
        ({"rollout.progressDeadlineSeconds": 200}, r"\(200\) must not be below probes.startup"),
        ({"serving.maxBatch": 512}, r"maxQueue \(256\) must not be below serving.maxBatch \(512\)"),
        ({"serving.maxQueue": 32}, r"maxQueue \(32\) must not be below serving.maxBatch \(64\)"),
        (
            {"serving.maxMemoryBytes": 2**20},
            r"maxMemoryBytes \(1048576\) must not be below serving.maxBodyBytes times 8",
        ),
        (
            {"serving.maxWorkSeconds": 40},
            r"timeoutSeconds \(30\) must not be below serving.maxWorkSeconds \(40\)",
        ),
        (
            {"serving.hangSeconds": 60},
            r"failureThreshold \(40\) must be above serving.hangSeconds",
        ),
        ({"serving.providerOptions": "device_id=1"}, "needs serving.provider: cuda"),
        ({"dnsPolicy": "None"}, "needs dnsConfig.nameservers"),
    ],
)
def test_what_would_fail_in_the_cluster_is_refused(
    ptft_chart: ChartUnderTest, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(helm.HelmRenderError, match=message):
        ptft_chart.render(settings)


@pytest.mark.parametrize(
    ("settings", "read"),
    [
        ({"resources.requests.memory": "2048Mi"}, {}),
        ({"resources.limits.cpu": "1000m"}, {}),
        ({"serving.timeoutSeconds": 3}, {"timeout_s": 3, "max_work_s": 1}),  # a third of it
        ({"serving.maxBodyBytes": 2**30}, {"max_body_bytes": 2**30}),
        ({"serving.maxBatch": 256}, {"max_batch": 256}),
    ],
)
def test_what_the_service_makes_right_is_taken(
    ptft_chart: ChartUnderTest, settings: dict[str, Any], read: dict[str, Any]
) -> None:
    """The pod's environment is a whole one for the service, which reads what the values say."""
    given = environment(ptft_chart.render(settings).server)
    found = read_settings({name: value for name, value in given.items() if isinstance(value, str)})
    assert {name: getattr(found, name) for name in read} == read
    assert found.max_memory_bytes > found.max_body_bytes
    assert found.max_work_s <= found.timeout_s
