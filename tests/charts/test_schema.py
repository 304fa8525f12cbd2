"""The schema refuses what is wrong before anything is rendered, and knows exactly the values."""

import copy
import json
import re
from collections.abc import Iterator
from typing import Any

import helm_python as helm
import jsonschema
import pytest

from .conftest import CHART, COMMIT, DEFAULTS, HUB, VOLUME, ChartUnderTest
from .generated import leaves
from .schemas import load_definitions

SCHEMA = json.loads((CHART / "values.schema.json").read_text())

SIDE = {"name": "side", "image": "b"}
EMPTY = {"name": "x", "emptyDir": {}}

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
    "an image that moves": ({"image.tag": "latest"}, "/image/tag"),
    "a volume that the chart has": (
        {"extraVolumes": [{"name": "tmp", "emptyDir": {}}]},
        "/extraVolumes/0",
    ),
    "a container that the chart has": (
        {"sidecars": [{"name": "server", "image": "a"}]},
        "/sidecars/0/name",
    ),
    "a privileged sidecar": (
        {"sidecars": [{"name": "a", "image": "b", "securityContext": {"privileged": True}}]},
        "securityContext",
    ),
    "a latency that the service does not count": (
        {"metrics.rules.latency.seconds": 3},
        "/metrics/rules/latency/seconds",
    ),
    "no time of day": ({"jobs.embed.schedule": "every night"}, "/jobs/embed/schedule"),
    "a pod of an unknown neighbourhood": (
        {"service.trafficDistribution": "Near"},
        "/service/trafficDistribution",
    ),
    "a label that the chart sets": (
        {"podLabels": {"app.kubernetes.io/name": "x"}},
        "propertyName 'app.kubernetes.io/name'",
    ),
    "a label that routes requests": (
        {"podLabels": {"ptft/answers": "x"}},
        "propertyName 'ptft/answers'",
    ),
    "a label of 64": ({"podLabels": {"a": "b" * 64}}, "/podLabels/a"),
    "a label with a space": ({"commonLabels": {"a": "b c"}}, "/commonLabels/a"),
    "a label's key with two slashes": ({"commonLabels": {"a/b/c": "d"}}, "'a/b/c'"),
    "a variable that the chart sets": (
        {"extraEnv": [{"name": "HF_HUB_OFFLINE", "value": "0"}]},
        "/extraEnv/0/name",
    ),
    "a variable of two values": (
        {"extraEnv": [{"name": "A", "value": "1", "valueFrom": {"fieldRef": {"fieldPath": "a"}}}]},
        "/extraEnv/0",
    ),
    "a path out of the volume": ({**VOLUME, "model.volume.subPath": "a/../../b"}, "subPath"),
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
            {
                "rollout.terminationGracePeriodSeconds": 36,
                "serving.timeoutSeconds": 25,
                "serving.listTimeoutSeconds": 25,
            },
            r"terminationGracePeriodSeconds \(36\) must be above the sum of .* \(36\.25\)",
        ),
        (
            {"service.loadBalancerSourceRanges": ["10.0.0.0/8"]},
            r"loadBalancerSourceRanges \(10\.0\.0\.0/8\) needs service.type: LoadBalancer",
        ),
        ({"extraEnv": [{"name": "A"}] * 2}, "extraEnv: the variable A stands twice"),
        ({"sidecars": [{"name": "a", "image": "b"}] * 2}, "sidecars, .*: the container a stands"),
        (
            {"sidecars": [SIDE], "initContainers": [SIDE]},
            "sidecars, initContainers: the container side stands twice",
        ),
        ({"extraVolumes": [EMPTY, EMPTY]}, "extraVolumes: the volume x stands twice"),
        (
            {"extraVolumeMounts": [{"name": "x", "mountPath": "/y"}]},
            "extraVolumeMounts: no volume x in the pod, for /y; allowed: tmp",
        ),
        (
            {"sidecars": [{**SIDE, "volumeMounts": [{"name": "x", "mountPath": "/y"}]}]},
            "side: no volume x in the pod, for /y",
        ),
        (
            {"extraVolumes": [EMPTY], "extraVolumeMounts": [{"name": "x", "mountPath": "/tmp/"}]},
            "extraVolumeMounts: the mount at /tmp stands twice",
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
)
def test_templates_refuse_what_contradicts(
    ptft_chart: ChartUnderTest, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(helm.HelmRenderError, match=message):
        ptft_chart.render(settings)


@pytest.mark.parametrize("name", ["1abc", "release.with.dots"])
def test_a_name_that_no_service_can_have_is_refused(ptft_chart: ChartUnderTest, name: str) -> None:
    with pytest.raises(helm.HelmRenderError, match=f"a Service called {name}-ptft; allowed"):
        ptft_chart.render(name=name)
    ptft_chart.render({"fullnameOverride": "birds"}, name=name)


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


KEYS = [key for key, _ in leaves(DEFAULTS, DEFAULTS)]
FREE_MAPS = {"metrics.dashboard.labels"}
"""Whose keys are the user's."""


@pytest.mark.parametrize("key", KEYS)
def test_a_key_that_is_misspelt_is_refused(key: str) -> None:
    """Every documented key, with a letter too many: by Helm's own rules, in one go."""
    validator = jsonschema.Draft7Validator(SCHEMA)
    *path, last = key.split(".")
    if ".".join(path) in FREE_MAPS:
        return
    values = copy.deepcopy(DEFAULTS)
    place = values
    for part in path:
        place = place[part]
    place[f"{last}x"] = place.pop(last)
    said = [error.message for error in validator.iter_errors(values)]
    assert any(f"{last}x" in message for message in said), said


def test_the_defaults_are_valid() -> None:
    assert list(jsonschema.Draft7Validator(SCHEMA).iter_errors(DEFAULTS)) == []


@pytest.mark.parametrize("key", ["replica", "serving.maxbatch", "jobs.train.node", "gpu.counts"])
def test_helm_refuses_a_key_that_is_misspelt(ptft_chart: ChartUnderTest, key: str) -> None:
    with pytest.raises(helm.HelmValuesError, match=key.split(".")[-1]):
        ptft_chart.render({key: 1})


def test_buckets_are_those_of_the_service() -> None:
    from serving.metrics import Metrics

    rules = SCHEMA["properties"]["metrics"]["properties"]["rules"]["properties"]
    bounds = rules["latency"]["properties"]["seconds"]["enum"]
    metrics = Metrics()
    metrics.observe_answer("a", 200, 1)
    text, _ = metrics.text("")
    known = re.findall(r'ptft_request_seconds_bucket{le="([0-9.]+)"', text.decode())
    assert [float(one) for one in known] == bounds
