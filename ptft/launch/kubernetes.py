"""A Job, a JobSet or a TrainJob of Kubernetes: one pod a node of the run.

The pods hold to the restricted pod security standard. A pod that saved and stopped (75, 143), that
lost another (76), or that its node lost, is started again and not counted; others are, up to
``retries``, each by its own exit code.

Forms: batch/v1 Job (https://kubernetes.io/docs/concepts/workloads/controllers/job/), JobSet
v1alpha2 (https://jobset.sigs.k8s.io), TrainJob v1alpha1 (https://trainer.kubeflow.org).
"""

import math
import re
from enum import StrEnum
from typing import Any

from ptft.errors import UsageError
from ptft.launch.job import GO_ON, LOST, LaunchJob, Ranks, program
from ptft.launch.yaml_files import dump_documents

__all__ = ["Form", "kubernetes_objects"]

_GPU = "nvidia.com/gpu"
_USER = 65532  # of the image
_NODE = "node"  # the JobSet's one replicated job, and the container
_EXPANDED = re.compile(r"\$(?=[$(])")


class Form(StrEnum):
    """Which object a run is."""

    JOB = "job"
    JOBSET = "jobset"
    TRAINJOB = "trainjob"


def kubernetes_objects(job: LaunchJob, form: Form = Form.JOB) -> str:
    """The objects as YAML, for ``kubectl apply``.

    Raises:
        UsageError: the launch file lacks what a pod needs, or asks for what the form has no place
            for.
    """
    _check(job, form)
    made = {Form.JOB: _job, Form.JOBSET: _jobset, Form.TRAINJOB: _trainjob}[form](job)
    return dump_documents(*made)


def _check(job: LaunchJob, form: Form) -> None:
    launch = job.launch
    if launch.image is None:
        raise UsageError("image: missing; allowed: a container image with ptft, best by digest")
    if launch.secrets and launch.kubernetes.secret is None:
        raise UsageError(
            "kubernetes.secret: missing, and secrets are named; allowed: the Secret whose keys "
            f"they are: kubectl create secret generic NAME --from-literal={launch.secrets[0]}=..."
        )
    if job.nodes > 1 and launch.runs is not None and launch.kubernetes.claim is None:
        raise UsageError(
            f"kubernetes.claim: missing, and {job.nodes} nodes share runs: {launch.runs!r}; "
            "allowed: a PersistentVolumeClaim with ReadWriteMany"
        )
    if form is not Form.JOB and job.workers > 1:
        raise UsageError(
            f"workers: {job.workers}: of an indexed Job alone; allowed: --form job, or workers: 1"
        )


def _metadata(job: LaunchJob) -> dict[str, Any]:
    labels = {"app.kubernetes.io/name": "ptft", "app.kubernetes.io/instance": job.name}
    if job.launch.kubernetes.queue is not None:
        labels["kueue.x-k8s.io/queue-name"] = job.launch.kubernetes.queue
    made: dict[str, Any] = {"name": job.name, "labels": labels}
    if job.launch.kubernetes.namespace is not None:
        made["namespace"] = job.launch.kubernetes.namespace
    return made


def _job(job: LaunchJob) -> list[dict[str, Any]]:
    """An Indexed Job, and the Service by which its pods find each other."""
    metadata, pods = _metadata(job), job.nodes * job.workers
    ranks = Ranks(head=f"{job.name}-0.{job.name}", node='"$JOB_COMPLETION_INDEX"')
    spec = _job_spec(job, pods, _pod(job, ranks))
    spec["template"]["spec"]["subdomain"] = job.name
    made = [{"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, "spec": spec}]
    if job.nodes > 1:
        service = {
            "clusterIP": "None",
            "publishNotReadyAddresses": True,
            "selector": {"job-name": job.name},
        }
        made.insert(
            0, {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": service}
        )
    else:
        del spec["template"]["spec"]["subdomain"]
    return made


def _jobset(job: LaunchJob) -> list[dict[str, Any]]:
    head = f"{job.name}-{_NODE}-0-0.{job.name}"
    spec = _job_spec(job, job.nodes, _pod(job, Ranks(head, '"$JOB_COMPLETION_INDEX"')))
    restarts = {"maxRestarts": job.launch.retries}
    jobs = [{"name": _NODE, "replicas": 1, "template": {"spec": spec}}]
    return [
        {
            "apiVersion": "jobset.x-k8s.io/v1alpha2",
            "kind": "JobSet",
            "metadata": _metadata(job),
            "spec": {
                "network": {"enableDNSHostnames": True, "subdomain": job.name},
                "failurePolicy": restarts,
                "replicatedJobs": jobs,
            },
        }
    ]


def _trainjob(job: LaunchJob) -> list[dict[str, Any]]:
    """torchrun's variables are the runtime's to give; what it has no place for is patched in."""
    launch = job.launch
    pod = _pod(job, Ranks(given=True))
    container = pod["containers"][0]
    trainer = {
        "image": container["image"],
        "command": container["command"],
        "args": container["args"],
        "env": container.get("env", []),
        "numNodes": job.nodes,
        "numProcPerNode": job.ranks,
        "resourcesPerNode": container["resources"],
    }
    kept = {"name": _NODE, "volumeMounts": container["volumeMounts"]}
    kept["securityContext"] = container["securityContext"]
    left = ("containers", "restartPolicy", "automountServiceAccountToken")  # no place for these
    inner = {key: value for key, value in pod.items() if key not in left}
    template = {"spec": {**inner, "containers": [kept]}}
    replaced = [{"name": _NODE, "template": {"spec": {"template": template}}}]
    patch = {
        "manager": "ptft.launch/trainjob",
        "trainingRuntimeSpec": {"template": {"spec": {"replicatedJobs": replaced}}},
    }
    spec: dict[str, Any] = {
        "runtimeRef": {"name": launch.kubernetes.runtime},
        "trainer": trainer,
        "runtimePatches": [patch],
    }
    if launch.hours is not None:
        spec["activeDeadlineSeconds"] = math.ceil(3600 * launch.hours)
    return [
        {
            "apiVersion": "trainer.kubeflow.org/v1alpha1",
            "kind": "TrainJob",
            "metadata": _metadata(job),
            "spec": spec,
        }
    ]


def _job_spec(job: LaunchJob, pods: int, pod: dict[str, Any]) -> dict[str, Any]:
    again = sorted((*GO_ON, LOST) if job.nodes > 1 else GO_ON)
    ignored = [
        {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
        {
            "action": "Ignore",
            "onExitCodes": {"containerName": _NODE, "operator": "In", "values": again},
        },
    ]
    spec: dict[str, Any] = {
        "completionMode": "Indexed",
        "completions": pods,
        "parallelism": pods,
        "backoffLimit": job.launch.retries,
        "podFailurePolicy": {"rules": ignored},
    }
    if job.launch.hours is not None:
        spec["activeDeadlineSeconds"] = math.ceil(3600 * job.launch.hours)
    labels = {"app.kubernetes.io/name": "ptft", "app.kubernetes.io/instance": job.name}
    return {**spec, "template": {"metadata": {"labels": labels}, "spec": pod}}


def _pod(job: LaunchJob, ranks: Ranks) -> dict[str, Any]:
    launch, told = job.launch, job.launch.kubernetes
    volumes: list[dict[str, Any]] = [
        {"name": "tmp", "emptyDir": _sized(launch.disk_gb)},
        {"name": "shm", "emptyDir": {"medium": "Memory"}},  # what loader processes hand over
    ]
    mounts = [{"name": "tmp", "mountPath": "/tmp"}, {"name": "shm", "mountPath": "/dev/shm"}]  # noqa: S108
    if told.claim is not None:
        volumes.append({"name": "runs", "persistentVolumeClaim": {"claimName": told.claim}})
        mounts.append({"name": "runs", "mountPath": launch.runs or "/runs"})
    container = {
        "name": _NODE,
        "image": launch.image,
        "command": ["bash", "-c"],
        "args": [_literal(program(job, ranks))],
        "env": _environment(job),
        "resources": _resources(job),
        "volumeMounts": mounts,
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": True,
        },
    }
    pod: dict[str, Any] = {
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": launch.grace_seconds,
        "automountServiceAccountToken": False,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": _USER,
            "runAsGroup": _USER,
            "fsGroup": _USER,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [container],
        "volumes": volumes,
    }
    if told.service_account is not None:
        pod["serviceAccountName"] = told.service_account
    if told.node_selector:
        pod["nodeSelector"] = dict(told.node_selector)
    if tolerations := _tolerations(job):
        pod["tolerations"] = tolerations
    return pod


def _environment(job: LaunchJob) -> list[dict[str, Any]]:
    env: list[dict[str, Any]] = [{"name": "HOME", "value": "/tmp"}]  # noqa: S108 - of no user there
    told = job.launch.env
    env += [{"name": name, "value": _literal(value)} for name, value in told.items()]
    for name in job.launch.secrets:
        key = {"name": job.launch.kubernetes.secret, "key": name}
        env.append({"name": name, "valueFrom": {"secretKeyRef": key}})
    return env


def _literal(text: str) -> str:
    """``text`` such that the kubelet leaves it as it is, which puts the value of a variable, a
    secret's too, where ``$(NAME)`` stands, be it in a recipe's comment or within a shell's quotes
    (https://kubernetes.io/docs/tasks/inject-data-application/define-command-argument-container/).
    """
    return _EXPANDED.sub("$$", text)


def _resources(job: LaunchJob) -> dict[str, dict[str, str]]:
    launch = job.launch
    requests: dict[str, str] = {}
    if launch.cpus is not None:
        requests["cpu"] = str(launch.cpus)
    if launch.memory_gb is not None:
        requests["memory"] = f"{launch.memory_gb}G"
    gpus = {} if launch.machine is None else {_GPU: str(launch.machine.count)}
    limits = {**{key: value for key, value in requests.items() if key == "memory"}, **gpus}
    found = {"requests": {**requests, **gpus}, "limits": limits}
    return {key: value for key, value in found.items() if value}


def _sized(gigabytes: int | None) -> dict[str, str]:
    return {} if gigabytes is None else {"sizeLimit": f"{gigabytes}G"}


def _tolerations(job: LaunchJob) -> list[dict[str, str]]:
    if job.launch.machine is None or not job.launch.kubernetes.tolerate_gpus:
        return []
    return [{"key": _GPU, "operator": "Exists", "effect": "NoSchedule"}]
