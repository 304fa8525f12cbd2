"""A SkyPilot task: a managed job, which SkyPilot starts again where a machine is found.

The task's form is SkyPilot 0.14's (https://docs.skypilot.co/en/latest/reference/yaml-spec.html).
"""

import re

from ptft.launch.job import GO_ON, MOUNTED, LaunchJob, Ranks, program
from ptft.launch.yaml_files import dump_documents

__all__ = ["AS_ROOT", "BUCKETS", "skypilot_task"]

AS_ROOT = ("--user=root", "--env=HOME=/root")
"""It installs an SSH server in the container and comes in as the user that the image names, who
has to have a name, a home and those rights; the image that trains runs as a number, with HOME at
/tmp (``sky/provision/docker_utils.py``)."""

BUCKETS = r"((?:s3|gs|r2|oci|cos|nebius)://[^/]+)"
"""Addresses that SkyPilot mounts; the group is the bucket."""


def skypilot_task(job: LaunchJob) -> str:
    """The task as YAML, for ``sky jobs launch``; each node runs its program."""
    launch = job.launch
    resources: dict[str, object] = {}
    if launch.skypilot.infra is not None:
        resources["infra"] = launch.skypilot.infra
    if launch.machine is not None:
        resources["accelerators"] = {launch.machine.card.skypilot: launch.machine.count}
    if launch.cpus is not None:
        resources["cpus"] = f"{launch.cpus}+"
    if launch.memory_gb is not None:
        resources["memory"] = f"{launch.memory_gb}+"
    if launch.disk_gb is not None:
        resources["disk_size"] = launch.disk_gb
    if launch.image is not None:
        resources["image_id"] = f"docker:{launch.image}"
    resources["use_spot"] = launch.spot
    resources["job_recovery"] = {
        "max_restarts_on_errors": launch.retries,
        "recover_on_exit_codes": list(GO_ON),
    }
    task: dict[str, object] = {
        "name": job.name,
        "resources": resources,
        "num_nodes": job.nodes * job.workers,
    }
    if launch.image is not None:
        task["config"] = {"docker": {"run_options": [*AS_ROOT]}}
    if launch.env:
        task["envs"] = dict(launch.env)
    if launch.secrets:
        task["secrets"] = dict.fromkeys(launch.secrets)
    mounted = launch.mirror if job.workers == 1 else None
    if mounted is not None and (found := re.match(BUCKETS, mounted)):
        task["file_mounts"] = {MOUNTED: {"source": found[1], "mode": "MOUNT"}}
    head = Ranks(head='"${SKYPILOT_NODE_IPS%%[[:space:]]*}"', node='"$SKYPILOT_NODE_RANK"')
    task["run"] = program(job, head, asks=launch.spot)
    return dump_documents(task)
