"""Objects that Kubernetes takes: against its own schemas, and those of the two CRDs."""

from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml

from ptft.launch import Form, System
from tests.launch.parts import expanded, rendered
from tests.support.schemas import closed

VERSIONS = ("1.29", "1.36")

# What of JobSet v1alpha2 and TrainJob v1alpha1 ptft fills in, written by the CRDs' descriptions:
# https://github.com/kubernetes-sigs/jobset, config/components/crd/bases, at 08dfbdf;
# https://github.com/kubeflow/trainer, manifests/base/crds, at 8c0f505. Pods are held to Kubernetes'
# own schema; all of it is held to Kubeflow's models in test_clients.py, where they are installed.
TEXT, COUNT = {"type": "string"}, {"type": "integer", "minimum": 0}


OBJECT = {"apiVersion": TEXT, "kind": TEXT, "metadata": {"type": "object"}}
JOBS = {
    "type": "array",
    "minItems": 1,
    "items": closed(["name", "template"], name=TEXT, replicas=COUNT, template={"type": "object"}),
}
JOBSET = closed(
    ["spec"],
    **OBJECT,
    spec=closed(
        ["replicatedJobs"],
        network=closed([], enableDNSHostnames={"type": "boolean"}, subdomain=TEXT),
        failurePolicy=closed([], maxRestarts=COUNT),
        replicatedJobs=JOBS,
    ),
)
PATCH = closed(
    ["manager"],
    manager=TEXT,
    trainingRuntimeSpec=closed(
        [], template=closed([], spec=closed([], replicatedJobs=JOBS, network={"type": "object"}))
    ),
)
TRAINJOB = closed(
    ["spec"],
    **OBJECT,
    spec=closed(
        ["runtimeRef"],
        runtimeRef=closed(["name"], name=TEXT, kind=TEXT, apiGroup=TEXT),
        activeDeadlineSeconds={"type": "integer", "minimum": 1},
        runtimePatches={"type": "array", "items": PATCH},
        trainer=closed(
            [],
            image=TEXT,
            command={"type": "array", "items": TEXT},
            args={"type": "array", "items": TEXT},
            env={"type": "array", "items": {"type": "object"}},
            numNodes={"type": "integer", "minimum": 1},
            numProcPerNode={"type": "integer", "minimum": 1},
            resourcesPerNode=closed([], requests={"type": "object"}, limits={"type": "object"}),
        ),
    ),
)

CASES = [
    ("pretrain/scenes", {}),
    ("pretrain/scenes", {"gpus": "h100x8", "nodes": 2}),
    ("pretrain/scenes", {"gpus": None, "cpus": None, "memory_gb": None, "secrets": [], "env": {}}),
    (
        "pretrain/scenes",
        {
            "nodes": 2,
            "runs": "/shared",
            "kubernetes": {
                "secret": "tokens",
                "namespace": "ml",
                "claim": "runs",
                "queue": "team",
                "service_account": "trainer",
                "node_selector": {"pool": "gpu"},
            },
        },
    ),
    ("compare/scenes", {}),
]


def documents(source: str, form: Form, changes: dict[str, Any]) -> list[dict[str, Any]]:
    made = rendered(source, on=System.KUBERNETES, form=form, **changes)
    return list(yaml.safe_load_all(made.text))


def as_job(spec: dict[str, Any]) -> dict[str, Any]:
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "a"}, "spec": spec}


def pods_of_trainjob(document: dict[str, Any]) -> dict[str, Any]:
    """The pod as Trainer makes it: the runtime's, patched, with the trainer's container."""
    (patch,) = document["spec"]["runtimePatches"]
    (job,) = patch["trainingRuntimeSpec"]["template"]["spec"]["replicatedJobs"]
    pod = job["template"]["spec"]["template"]["spec"]
    trainer = document["spec"]["trainer"]
    keys = ("image", "command", "args", "env")
    (container,) = pod["containers"]
    whole = {**container, **{key: trainer[key] for key in keys}}
    whole["resources"] = trainer["resourcesPerNode"]
    return {**pod, "restartPolicy": "Never", "containers": [whole]}


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("form", Form)
@pytest.mark.parametrize("case", range(len(CASES)))
def test_the_schemas_hold(case: int, form: Form, version: str) -> None:
    made = documents(CASES[case][0], form, CASES[case][1])
    assert made
    for document in made:
        match document["kind"]:
            case "JobSet":
                jsonschema.validate(document, JOBSET)
                (job,) = document["spec"]["replicatedJobs"]
                held = as_job(job["template"]["spec"])
            case "TrainJob":
                jsonschema.validate(document, TRAINJOB)
                held = as_job({"template": {"spec": pods_of_trainjob(document)}})
            case _:
                held = document
        kubernetes_validate.validate(held, version, strict=True)
        with pytest.raises(kubernetes_validate.ValidationError):  # it does look at this kind
            kubernetes_validate.validate({**held, "metadata": 1}, version, strict=True)


def pod_of(document: dict[str, Any]) -> dict[str, Any]:
    if document["kind"] == "TrainJob":
        return pods_of_trainjob(document)
    spec = document["spec"]
    if document["kind"] == "JobSet":
        spec = spec["replicatedJobs"][0]["template"]["spec"]
    pod: dict[str, Any] = spec["template"]["spec"]
    return pod


@pytest.mark.parametrize("form", Form)
def test_a_pod_holds_to_the_restricted_standard(form: Form) -> None:
    """https://kubernetes.io/docs/concepts/security/pod-security-standards/"""
    pod = pod_of(documents("pretrain/scenes", form, {})[-1])
    (container,) = pod["containers"]
    assert pod["securityContext"]["runAsNonRoot"]
    assert pod["securityContext"]["runAsUser"] > 0
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert container["securityContext"]["allowPrivilegeEscalation"] is False
    assert container["securityContext"]["readOnlyRootFilesystem"]
    kinds = {key for volume in pod["volumes"] for key in volume if key != "name"}
    assert kinds <= {"emptyDir", "persistentVolumeClaim"}
    assert pod["terminationGracePeriodSeconds"] == 120


def test_secrets_are_by_name() -> None:
    (job,) = documents("pretrain/scenes", Form.JOB, {})
    env = {one["name"]: one for one in pod_of(job)["containers"][0]["env"]}
    assert env["HF_TOKEN"]["valueFrom"] == {"secretKeyRef": {"name": "tokens", "key": "HF_TOKEN"}}
    assert env["NCCL_DEBUG"]["value"] == "WARN"


@pytest.mark.parametrize("form", Form)
def test_a_setting_does_not_take_a_secret_up(form: Form) -> None:
    told = "$(HF_TOKEN) $$(HF_TOKEN) $$ $HOME"
    made = documents("pretrain/scenes", form, {"env": {"NOTE": told}})[-1]
    env = {one["name"]: one for one in pod_of(made)["containers"][0]["env"]}
    assert expanded(env["NOTE"]["value"], {"HF_TOKEN": "x", "HOME": "/tmp"}) == told


def test_two_nodes_find_each_other_by_a_service() -> None:
    service, job = documents("pretrain/scenes", Form.JOB, {"nodes": 2})
    assert service["spec"]["clusterIP"] == "None"
    assert service["spec"]["selector"] == {"job-name": job["metadata"]["name"]}
    assert pod_of(job)["subdomain"] == service["metadata"]["name"]
    assert job["spec"]["completions"] == 2
    gone, ended = job["spec"]["podFailurePolicy"]["rules"]
    assert gone["action"] == ended["action"] == "Ignore"
    assert ended["onExitCodes"]["values"] == [75, 76, 143]  # 76: the fault is the other pod's
