"""Every pod meets the restricted pod security standard, and no value weakens it.

The rules are those of https://kubernetes.io/docs/concepts/security/pod-security-standards/.
"""

import json
from pathlib import Path
from typing import Any

import helm_python as helm
import pytest

from .conftest import HUB, ChartUnderTest, each_values_file, environment, nest, read_values

RESTRICTED_VOLUMES = {
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "persistentVolumeClaim",
    "projected",
    "secret",
}


def containers(pod: dict[str, Any]) -> list[dict[str, Any]]:
    """All containers of a pod, those that run first included."""
    return [*pod.get("initContainers", []), *pod["containers"]]


@each_values_file
def test_pods_are_restricted(ptft_chart: ChartUnderTest, file: Path | None) -> None:
    for pod in ptft_chart.render(values=read_values(file)).pods:
        assert not {"hostNetwork", "hostPID", "hostIPC", "hostUsers"} & pod.keys()
        assert pod["automountServiceAccountToken"] is False
        assert pod["enableServiceLinks"] is False
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert pod["securityContext"].get("runAsUser") != 0
        for volume in pod.get("volumes", []):
            assert volume.keys() - {"name"} <= RESTRICTED_VOLUMES


@each_values_file
def test_containers_are_restricted(ptft_chart: ChartUnderTest, file: Path | None) -> None:
    for pod in ptft_chart.render(values=read_values(file)).pods:
        for container in containers(pod):
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "runAsNonRoot": True,
                "capabilities": {"drop": ["ALL"]},
                "seccompProfile": {"type": "RuntimeDefault"},
            }
            assert container["resources"]["requests"].keys() >= {"cpu", "memory"}
            assert "memory" in container["resources"]["limits"]
            assert all("hostPort" not in port for port in container.get("ports", []))


@each_values_file
def test_what_is_written_goes_to_a_volume(ptft_chart: ChartUnderTest, file: Path | None) -> None:
    spec = ptft_chart.render(values=read_values(file)).template["spec"]
    ours = [one for one in containers(spec) if one["name"] in ("pull", "server")]
    for container in ours:
        writable = {
            mount["mountPath"]
            for mount in container["volumeMounts"]
            if not mount.get("readOnly", False)
        }
        assert "/tmp" in writable
        values = environment(container)
        for name in {"HOME", "HF_HOME", "BENTOML_HOME"} & values.keys():
            assert any(
                values[name] == top or values[name].startswith(f"{top}/") for top in writable
            )


def test_ids(ptft_chart: ChartUnderTest) -> None:
    context = ptft_chart.render().template["spec"]["securityContext"]
    assert (context["runAsUser"], context["runAsGroup"], context["fsGroup"]) == (65532,) * 3
    chosen = nest({f"security.{key}": None for key in ("runAsUser", "runAsGroup", "fsGroup")})
    left = ptft_chart.render(values=chosen).template["spec"]["securityContext"]
    assert left == {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}


def test_token_reaches_only_the_init_container(ptft_chart: ChartUnderTest) -> None:
    release = ptft_chart.render({**HUB, "model.hub.tokenSecret": {"name": "s3same", "key": "hf"}})
    reference = {"secretKeyRef": {"name": "s3same", "key": "hf"}}
    assert environment(release.pull)["HF_TOKEN"] == reference
    gate = release.get("Job")["spec"]["template"]
    for pod in (release.template["spec"], gate["spec"]):
        assert "s3same" in json.dumps(pod.pop("initContainers"))
    rest = json.dumps(release.documents) + release.notes
    assert "s3same" not in rest and "HF_TOKEN" not in rest


def test_no_token_where_no_secret_is_named(ptft_chart: ChartUnderTest) -> None:
    assert "HF_TOKEN" not in environment(ptft_chart.render(HUB).pull)


@pytest.mark.parametrize("name", ["HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "PTFT_MODEL", "HF_HOME"])
@pytest.mark.parametrize("place", ["extraEnv", "model.hub.extraEnv"])
def test_environment_of_the_chart_cannot_be_replaced(
    ptft_chart: ChartUnderTest, place: str, name: str
) -> None:
    with pytest.raises(helm.HelmValuesError, match=f"/{place.replace('.', '/')}/0/name"):
        ptft_chart.render({**HUB, place: [{"name": name, "value": "x"}]})


def test_service_runs_offline(ptft_chart: ChartUnderTest) -> None:
    release = ptft_chart.render({**HUB, "model.hub.endpoint": "https://hub.example.org"})
    assert environment(release.pull)["HF_ENDPOINT"] == "https://hub.example.org"
    served = environment(release.server)
    assert served["HF_HUB_OFFLINE"] == "1" and "HF_ENDPOINT" not in served
    assert served["BENTOML_DO_NOT_TRACK"] == "true"
