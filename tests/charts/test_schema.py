"""The schema refuses what is wrong before anything is rendered, and knows exactly the values."""

import json
import re
from collections.abc import Iterator
from typing import Any

import helm_python as helm
import jsonschema
import pytest

from .conftest import CHART, COMMIT, DEFAULTS, HUB, ChartUnderTest
from .schemas import load_definitions

SCHEMA = json.loads((CHART / "values.schema.json").read_text())

REFUSED = {
    "unknown key": ({"replicaCount": 3}, "replicaCount"),
    "unknown key, nested": ({"model.hub.rev": "v1"}, "rev"),
    "unknown key of a toleration": ({"tolerations": [{"keys": "a"}]}, "keys"),
    "wrong type": ({"replicas": "two"}, "/replicas"),
    "wrong type, nested": ({"ingress.enabled": "yes"}, "/ingress/enabled"),
    "null where a value is needed": ({"rollout.maxSurge": None}, "maxSurge"),
    "unknown source": ({"model.source": "s3"}, "/model/source"),
    "unknown precision": ({"serving.precision": "fp64"}, "/serving/precision"),
    "nothing allowed at a time": ({"serving.maxBatch": 0}, "/serving/maxBatch"),
    "root": ({"security.runAsUser": 0}, "/security/runAsUser"),
    "a weaker security context": ({"securityContext": {"privileged": True}}, "securityContext"),
    "a host path": ({"extraVolumes": [{"name": "a", "hostPath": {"path": "/"}}]}, "hostPath"),
    "no surge": ({"rollout.maxSurge": 0}, "/rollout/maxSurge"),
    "no disruption": ({"disruptionBudget.maxUnavailable": "0%"}, "maxUnavailable"),
    "short digest": ({"image.digest": "sha256:abc"}, "/image/digest"),
    "model digest without its kind": ({"model.digest": "1" * 64}, "/model/digest"),
    "the model at the root": ({"model.path": "/"}, "/model/path"),
    "token in plain text": ({**HUB, "model.hub.token": "hf_x"}, "token"),
    "hub without repo": ({**HUB, "model.hub.repo": ""}, "/model/hub/repo"),
    "hub with half a repo": ({**HUB, "model.hub.repo": "birds"}, "/model/hub/repo"),
    "hub without revision": ({**HUB, "model.hub.revision": ""}, "/model/hub/revision"),
    "revision of another source": ({"model.hub.revision": COMMIT}, "/model/hub/revision"),
    "token of another source": ({"model.hub.tokenSecret.name": "a"}, "/model/hub/tokenSecret"),
    "volume without claim": ({"model.source": "volume"}, "/model/volume/claim"),
    "claim of another source": ({**HUB, "model.volume.claim": "a"}, "/model/volume/claim"),
    "ingress without host": ({"ingress.enabled": True}, "/ingress/hosts"),
    "a label that the chart sets": (
        {"podLabels": {"app.kubernetes.io/name": "x"}},
        "propertyName 'app.kubernetes.io/name'",
    ),
    "an annotation that it sets": (
        {"podAnnotations": {"checksum/model": "x"}},
        "propertyName 'checksum/model'",
    ),
}


@pytest.mark.parametrize(("settings", "named"), REFUSED.values(), ids=REFUSED)
def test_schema_refuses(ptft_chart: ChartUnderTest, settings: dict[str, Any], named: str) -> None:
    with pytest.raises(helm.HelmValuesError, match=re.escape(named)):
        ptft_chart.render(settings)


@pytest.mark.parametrize(
    "revision",
    [
        *("main", "master", "latest", "HEAD", "stable", "refs/heads/v1", "refs/pr/1", "v1/2"),
        *(COMMIT[:7] + "a", COMMIT[:39], COMMIT + "0", "v1 ", "v1@{0}", 20261123),
    ],
)
def test_schema_refuses_a_revision_that_moves(ptft_chart: ChartUnderTest, revision: Any) -> None:
    with pytest.raises(helm.HelmValuesError, match="/model/hub/revision"):
        ptft_chart.render({**HUB, "model.hub.revision": revision})


@pytest.mark.parametrize("revision", [COMMIT, "v1", "v1.2.3-rc.1", "20261123", "step_512"])
def test_schema_takes_a_pinned_revision(ptft_chart: ChartUnderTest, revision: str) -> None:
    release = ptft_chart.render({**HUB, "model.hub.revision": revision})
    assert release.pull["command"][2] == f"example/birds@{revision}"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"rollout.terminationGracePeriodSeconds": 31, "serving.timeoutSeconds": 25},
            r"terminationGracePeriodSeconds \(31\) must be above the sum of .* \(31\)",
        ),
        (
            {"serving.maxBatch": 9, "serving.maxQueue": 8},
            r"maxQueue \(8\) must not be below serving.maxBatch \(9\)",
        ),
        (
            {"autoscaling": {"enabled": True, "minReplicas": 9}},
            r"minReplicas \(9\) must not be above autoscaling.maxReplicas \(8\)",
        ),
        (
            {"autoscaling": {"enabled": True, "targetCPUUtilizationPercentage": None}},
            "needs autoscaling.targetWorkSeconds, targetCPUUtilizationPercentage or podMetrics",
        ),
    ],
    ids=["grace", "queue", "replicas", "metrics"],
)
def test_templates_refuse_what_contradicts(
    ptft_chart: ChartUnderTest, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(helm.HelmRenderError, match=message):
        ptft_chart.render(settings)


def test_no_object_of_the_schema_is_open() -> None:
    def walk(node: Any, path: str) -> Iterator[str]:
        if isinstance(node, list):
            for index, entry in enumerate(node):
                yield from walk(entry, f"{path}/{index}")
        elif isinstance(node, dict):
            if node.get("type") == "object" and node.get("additionalProperties", True) is True:
                yield path
            for key, entry in node.items():
                yield from walk(entry, f"{path}/{key}")

    whole = "/properties/extraObjects/items"  # manifests of others, as they are
    assert list(walk(SCHEMA, "")) == ["/properties/global", whole, f"{whole}/properties/metadata"]


def test_schema_knows_exactly_the_values() -> None:
    def resolve(node: dict[str, Any]) -> dict[str, Any]:
        reference = node.get("$ref", "")
        return SCHEMA["definitions"][reference.split("/")[-1]] if reference else node

    def compare(values: dict[str, Any], node: dict[str, Any], path: str) -> None:
        properties = resolve(node).get("properties")
        if properties is None:  # a map with free keys, such as nodeSelector
            return
        assert set(values) == set(properties) - {"global"}, path or "top"
        for key, value in values.items():
            if isinstance(value, dict) and value:
                compare(value, properties[key], f"{path}.{key}")

    compare(DEFAULTS, SCHEMA, "")


KUBERNETES = {  # definitions of the schema -> what they are called in the API
    "keyRef": "SecretKeySelector",
    "keyToPath/items": "KeyToPath",
    "env/items": "EnvVar",
    "volume": "Volume",
    "volume/properties/csi": "CSIVolumeSource",
    "volume/properties/secret": "SecretVolumeSource",
    "volume/properties/configMap": "ConfigMapVolumeSource",
    "volumeMount": "VolumeMount",
    "nodeSelectorTerm": "NodeSelectorTerm",
    "nodeRequirements/items": "NodeSelectorRequirement",
    "podAffinityTerm": "PodAffinityTerm",
    "podAffinity": "PodAffinity",
    "affinity": "Affinity",
    "affinity/properties/nodeAffinity": "NodeAffinity",
    "toleration": "Toleration",
    "peer": "NetworkPolicyPeer",
    "peer/properties/ipBlock": "IPBlock",
    "egressRule": "NetworkPolicyEgressRule",
}


@pytest.mark.parametrize(("definition", "kind"), KUBERNETES.items(), ids=KUBERNETES)
def test_what_is_handed_on_is_spelt_as_in_kubernetes(definition: str, kind: str) -> None:
    node = SCHEMA["definitions"]
    for step in definition.split("/"):
        node = node[step]
    group = "networking" if kind.startswith(("Network", "IP")) else "core"
    theirs = load_definitions()[f"io.k8s.api.{group}.v1.{kind}"]
    assert set(node["properties"]) <= set(theirs["properties"])
    assert set(theirs.get("required", [])) <= set(node.get("required", []))


def test_schema_is_a_schema() -> None:
    jsonschema.Draft7Validator.check_schema(SCHEMA)
