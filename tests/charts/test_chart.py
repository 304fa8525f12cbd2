"""The chart renders to manifests that Kubernetes accepts and that do what the README says."""

import json
import shutil
from dataclasses import fields
from pathlib import Path
from typing import Any

import helm_python as helm
import kubernetes_validate
import pytest
import yaml

import ptft
from ptft.errors import UsageError
from serving.settings import Settings, read_settings, unknown_settings

from .conftest import (
    CHART,
    VALUE_FILES,
    ChartUnderTest,
    environment,
    name_of,
    read_values,
)

CUSTOM_KINDS = {"ServiceMonitor"}  # of an operator: not in the schemas of Kubernetes
COMMIT = "0123456789abcdef0123456789abcdef01234567"
HUB = {
    "model.source": "hub",
    "model.hub.repo": "example/birds",
    "model.hub.revision": COMMIT,
}
VOLUME = {"model.source": "volume", "model.volume.claim": "models"}

each_values_file = pytest.mark.parametrize("file", VALUE_FILES, ids=name_of)


@each_values_file
def test_lint_has_nothing_to_say(file: Path | None) -> None:
    report = helm.lint(CHART, read_values(file), strict=True, kube_version="v1.30.0")
    assert report["total_charts_linted"] == 1
    assert report["errors"] == []
    assert [message for message in report["messages"] if message["severity"] >= 2] == []


@pytest.mark.parametrize("version", ["1.30", kubernetes_validate.latest_version()])
@each_values_file
def test_manifests_fit_the_schemas_of_kubernetes(
    ptft_chart: ChartUnderTest, file: Path | None, version: str
) -> None:
    release = ptft_chart.render(values=read_values(file))
    held = [one for one in release.documents if one["kind"] not in CUSTOM_KINDS]
    assert {"Deployment", "Service"} <= {manifest["kind"] for manifest in held}
    for manifest in held:
        kubernetes_validate.validate(manifest, version, strict=True)
        with pytest.raises(kubernetes_validate.ValidationError):  # it does look at this kind
            kubernetes_validate.validate({**manifest, "metadata": 1}, version, strict=True)


def test_examples_render_every_kind(ptft_chart: ChartUnderTest) -> None:
    kinds = {
        manifest["kind"]
        for file in VALUE_FILES
        for manifest in ptft_chart.render(values=read_values(file)).documents
    }
    written = {
        line.removeprefix("kind: ").strip()
        for template in (CHART / "templates").rglob("*.yaml")
        for line in template.read_text().splitlines()
        if line.startswith("kind: ")
    }
    assert kinds == written
    assert kinds >= CUSTOM_KINDS


def test_kubernetes_schemas_refuse_a_manifest_that_is_wrong(ptft_chart: ChartUnderTest) -> None:
    manifest = ptft_chart.render().get("Deployment")
    manifest["spec"]["template"]["spec"]["containers"][0]["imagePullPolice"] = "Always"
    with pytest.raises(kubernetes_validate.ValidationError, match="imagePullPolice"):
        kubernetes_validate.validate(manifest, "1.30", strict=True)


def test_versions_agree_with_the_package() -> None:
    metadata = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert metadata["appVersion"] == ptft.__version__


def test_package_holds_what_a_user_needs(tmp_path: Path) -> None:
    archive = Path(helm.package(CHART, destination=tmp_path))
    assert archive.name.startswith("ptft-")
    with helm.Chart.load(archive) as packed:
        files = {file["name"] for file in packed.files}
        assert {"README.md", "files/ask.py", "examples/hub.yaml"} <= files
        assert packed.schema is not None
        with helm.Chart.load(CHART) as chart:
            assert packed.render({}, name="demo") == chart.render({}, name="demo")


def test_chart_works_as_a_part_of_another(tmp_path: Path) -> None:
    """Helm hands a part ``global``, which a strict schema must not refuse."""
    parent = tmp_path / "parent"
    shutil.copytree(CHART, parent / "charts" / "ptft")
    (parent / "Chart.yaml").write_text("apiVersion: v2\nname: parent\nversion: 0.1.0\n")
    (parent / "values.yaml").write_text("global: {region: north}\nptft: {replicas: 5}\n")
    with helm.Chart.load(parent) as chart:
        rendered = chart.render({}, name="demo")
    deployment = yaml.safe_load(rendered["parent/charts/ptft/templates/deployment.yaml"])
    assert deployment["spec"]["replicas"] == 5


def test_digest_wins_over_tag(ptft_chart: ChartUnderTest) -> None:
    digest = "sha256:" + "a" * 64
    images = {
        "ptft:0.1.0": {},
        "ptft:7": {"image.tag": "7"},
        f"ptft@{digest}": {"image.tag": "7", "image.digest": digest},
    }
    for image, settings in images.items():
        release = ptft_chart.render({**HUB, **settings})
        used = [release.server, release.pull, release.pods[1]["containers"][0]]
        assert [container["image"] for container in used] == [image] * 3


def test_model_in_the_image(ptft_chart: ChartUnderTest) -> None:
    release = ptft_chart.render({"model.path": "/srv/model"})
    assert "initContainers" not in release.template["spec"]
    assert environment(release.server)["PTFT_MODEL"] == "/srv/model"
    assert "PTFT_MODEL" not in environment(ptft_chart.render().server)  # the image knows its own
    assert [mount["mountPath"] for mount in release.server["volumeMounts"]] == ["/tmp"]


def test_model_from_the_hub(ptft_chart: ChartUnderTest) -> None:
    release = ptft_chart.render({**HUB, "model.path": "/srv/model"})
    assert release.pull["command"] == ["ptft", "pull", f"example/birds@{COMMIT}", "/pulled/model"]
    pulled = {mount["name"]: mount for mount in release.pull["volumeMounts"]}
    served = {mount["name"]: mount for mount in release.server["volumeMounts"]}
    assert pulled["model"] == {"name": "model", "mountPath": "/pulled"}
    mount = {"name": "model", "mountPath": "/srv/model", "subPath": "model", "readOnly": True}
    assert served["model"] == mount
    assert environment(release.server)["PTFT_MODEL"] == "/srv/model"
    assert environment(release.pull)["HF_HOME"] == pulled["cache"]["mountPath"]
    assert "cache" not in served


def test_cache_is_a_claim_where_one_is_given(ptft_chart: ChartUnderTest) -> None:
    volumes = [
        {volume["name"]: volume for volume in release.template["spec"]["volumes"]}["cache"]
        for release in (
            ptft_chart.render(HUB),
            ptft_chart.render({**HUB, "model.hub.cacheClaim": "downloads"}),
        )
    ]
    assert volumes[0]["emptyDir"] == {"sizeLimit": "10Gi"}
    assert volumes[1]["persistentVolumeClaim"] == {"claimName": "downloads"}


def test_model_on_a_volume_is_read_only(ptft_chart: ChartUnderTest) -> None:
    release = ptft_chart.render({**VOLUME, "model.volume.subPath": "birds/b32"})
    volumes = {volume["name"]: volume for volume in release.template["spec"]["volumes"]}
    assert volumes["model"]["persistentVolumeClaim"] == {"claimName": "models", "readOnly": True}
    mounts = {mount["name"]: mount for mount in release.server["volumeMounts"]}
    assert mounts["model"] == {
        "name": "model",
        "mountPath": "/model",
        "readOnly": True,
        "subPath": "birds/b32",
    }
    assert "initContainers" not in release.template["spec"]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (HUB, {**HUB, "model.hub.revision": "f" * 40}),
        (HUB, {**HUB, "model.digest": "sha256:" + "1" * 64}),
        (VOLUME, {**VOLUME, "model.volume.subPath": "other"}),
        (VOLUME, HUB),
        ({}, HUB),
    ],
    ids=["revision", "digest", "path", "volume-to-hub", "image-to-hub"],
)
def test_another_model_is_another_pod(
    ptft_chart: ChartUnderTest, before: dict[str, Any], after: dict[str, Any]
) -> None:
    checksums = {
        ptft_chart.render(settings).template["metadata"]["annotations"]["checksum/model"]
        for settings in (before, after)
    }
    assert len(checksums) == 2


def test_release_is_stable(ptft_chart: ChartUnderTest) -> None:
    """An upgrade with nothing new restarts no pod, and neither does a new replica count."""
    once, again = ptft_chart.render(HUB), ptft_chart.render({**HUB, "replicas": 9})
    assert once.template == again.template


def test_large_numbers_stay_whole(ptft_chart: ChartUnderTest) -> None:
    """Helm reads numbers as floats, which print as 3.3554432e+07 unless told otherwise."""
    release = ptft_chart.render({"serving.maxBodyBytes": 33554432, "security.fsGroup": 1000650000})
    assert environment(release.server)["PTFT_MAX_BODY_BYTES"] == "33554432"
    assert release.template["spec"]["securityContext"]["fsGroup"] == 1000650000


def test_settings_left_open_are_left_to_the_service(ptft_chart: ChartUnderTest) -> None:
    names = {name for name in environment(ptft_chart.render().server) if name.startswith("PTFT_")}
    assert names == {"PTFT_THREADS"}


def test_settings_are_those_of_the_service(ptft_chart: ChartUnderTest) -> None:
    """Each setting has a value in the chart, and the service reads what the chart hands over."""
    changed = read_values(Path(__file__).with_name("every_value_changed.yaml"))
    values = {"serving": changed["serving"], "model": {"digest": changed["model"]["digest"]}}
    values["model"]["path"] = "/srv/model"
    given = {
        name: value
        for name, value in environment(ptft_chart.render(values=values).server).items()
        if name.startswith("PTFT_")
    }
    assert given.keys() == {f"PTFT_{field.name.upper()}" for field in fields(Settings)}
    assert unknown_settings(given) == []
    assert given.pop("PTFT_OTLP_ENDPOINT") == "http://a.example:4318"  # reading needs the exporter
    assert read_settings(given) == Settings(
        model=Path("/srv/model"),
        model_digest="sha256:" + "9" * 64,
        precision="int8",
        threads=9,
        max_body_bytes=9999,
        max_pixels=9,
        max_batch=9,
        micro_batch=9,
        max_inputs=99,
        max_queue=9,
        max_prompts=9,
        max_characters=9,
        max_memory_bytes=9999999,
        max_work_s=9,
        formats=("png", "tiff"),
        jpeg="exact",
        timeout_s=9.5,
        body_idle_s=9,
        header_s=9,
        idle_s=9,
        max_header_bytes=9999,
        max_connections=9,
        hang_s=9,
        drain_s=0,
        keys_file=Path("/etc/ptft/keys/other"),
        keys="a sha256:9",
        metrics="key",
        cors_origins=("https://a.example", "https://b.example"),
        log_format="json",
        access_log=True,
        trace_ratio=0,
        provider="cuda",
        provider_options=(("device_id", "1"),),
        cache_bytes=9,
        aliases=("other", "another"),
        dimensions=(9,),
        url_hosts=("a.example",),
        url_s=9,
    )


def test_settings_of_the_examples_are_accepted(ptft_chart: ChartUnderTest) -> None:
    for file in VALUE_FILES:
        given = environment(ptft_chart.render(values=read_values(file)).server)
        told = {name: value for name, value in given.items() if isinstance(value, str)}
        assert read_settings(told).precision == told.get("PTFT_PRECISION", "fp32")
        with pytest.raises(UsageError, match="PTFT_PRECISION"):
            read_settings({**told, "PTFT_PRECISION": "fp31"})


def test_threads_follow_the_cpu_request(ptft_chart: ChartUnderTest) -> None:
    field = environment(ptft_chart.render().server)["PTFT_THREADS"]
    assert field == {"resourceFieldRef": {"resource": "requests.cpu", "divisor": "1"}}
    told = ptft_chart.render({"serving.threads": 3}).server
    assert environment(told)["PTFT_THREADS"] == "3"
    unknown = ptft_chart.render({"resources.requests": {"cpu": None}}).server
    assert "PTFT_THREADS" not in environment(unknown)


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


def test_traffic_reaches_the_server_and_not_the_test_pod(ptft_chart: ChartUnderTest) -> None:
    release = ptft_chart.render(values=read_values(CHART / "examples" / "hub.yaml"))
    selectors = [
        release.get("Service")["spec"]["selector"],
        release.get("Deployment")["spec"]["selector"]["matchLabels"],
        release.get("PodDisruptionBudget")["spec"]["selector"]["matchLabels"],
        release.get("NetworkPolicy")["spec"]["podSelector"]["matchLabels"],
    ]
    server, test = release.template["metadata"]["labels"], release.get("Pod")["metadata"]["labels"]
    for selector in selectors:
        assert selector.items() <= server.items()
        assert not selector.items() <= test.items()
    monitored = release.get("ServiceMonitor")["spec"]["selector"]["matchLabels"]
    assert monitored.items() <= release.get("Service")["metadata"]["labels"].items()
    port = release.get("Service")["spec"]["ports"][0]["targetPort"]
    assert {entry["name"]: entry["containerPort"] for entry in release.server["ports"]} == {
        port: 3000
    }


def test_autoscaler_owns_the_replicas(ptft_chart: ChartUnderTest) -> None:
    release = ptft_chart.render({"autoscaling.enabled": True})
    assert "replicas" not in release.get("Deployment")["spec"]
    target = release.get("HorizontalPodAutoscaler")["spec"]["scaleTargetRef"]
    assert target["name"] == release.get("Deployment")["metadata"]["name"]
    assert ptft_chart.render().get("Deployment")["spec"]["replicas"] == 2


def test_network_policy_opens_only_the_hub(ptft_chart: ChartUnderTest) -> None:
    on = {"networkPolicy.enabled": True}
    assert ptft_chart.render(on).get("NetworkPolicy")["spec"]["egress"] == []
    for endpoint, port in {
        "": 443,
        "https://hub.example.org/base": 443,
        "http://hub.example.org": 80,
        "https://hub.example.org:8443": 8443,
    }.items():
        release = ptft_chart.render({**HUB, **on, "model.hub.endpoint": endpoint})
        _, hub = release.get("NetworkPolicy")["spec"]["egress"]
        assert hub == {"ports": [{"port": port, "protocol": "TCP"}]}


def test_network_policy_lets_helm_test_in(ptft_chart: ChartUnderTest) -> None:
    peer = {"namespaceSelector": {"matchLabels": {"team": "search"}}}
    release = ptft_chart.render({"networkPolicy": {"enabled": True, "from": [peer]}})
    ours, theirs = release.get("NetworkPolicy")["spec"]["ingress"][0]["from"]
    labels = release.get("Pod")["metadata"]["labels"]
    assert ours["podSelector"]["matchLabels"].items() <= labels.items()
    assert theirs == peer


def test_metrics_are_scraped_once(ptft_chart: ChartUnderTest) -> None:
    for scrape in ("annotations", "serviceMonitor", "none"):
        release = ptft_chart.render({"metrics.scrape": scrape})
        annotated = "prometheus.io/scrape" in release.template["metadata"]["annotations"]
        assert annotated is (scrape == "annotations")
        assert bool(release.find("ServiceMonitor")) is (scrape == "serviceMonitor")


def test_ingress_keeps_metrics_inside(ptft_chart: ChartUnderTest) -> None:
    release = ptft_chart.render({"ingress": {"enabled": True, "hosts": ["a.example", "b.example"]}})
    rules = release.get("Ingress")["spec"]["rules"]
    assert [rule["host"] for rule in rules] == ["a.example", "b.example"]
    assert [path["path"] for rule in rules for path in rule["http"]["paths"]] == ["/v1", "/v1"]
    assert "curl http://a.example/v1/" in release.notes


def test_gpu_is_asked_for_by_limit(ptft_chart: ChartUnderTest) -> None:
    release = ptft_chart.render({**HUB, "gpu.count": 2, "gpu.resource": "amd.com/gpu"})
    assert release.server["resources"]["limits"] == {"memory": "2Gi", "amd.com/gpu": 2}
    assert release.pull["resources"]["limits"] == {"memory": "2Gi"}


@pytest.mark.parametrize("name", ["a" * 53, "ptft", "my-ptft-2"])
def test_names_fit(ptft_chart: ChartUnderTest, name: str) -> None:
    release = ptft_chart.render(HUB, name=name)
    names = [manifest["metadata"]["name"] for manifest in release.documents]
    assert all(len(text) <= 63 for text in names)
    assert (name in names) is ("ptft" in name)
    labels = release.get("Deployment")["metadata"]["labels"]
    assert all(len(value) <= 63 for value in labels.values())


def test_notes_ask_the_service_that_was_installed(ptft_chart: ChartUnderTest) -> None:
    release = ptft_chart.render({**HUB, "service.port": 8080})
    service = release.get("Service")["metadata"]["name"]
    assert f"port-forward service/{service} 3000:8080" in release.notes
    assert f"example/birds@{COMMIT}" in release.notes
    assert "set model.digest" in release.notes
    body = json.loads(release.notes.split("-d '")[1].split("'")[0])
    assert body == {"input": ["a red circle"]}
