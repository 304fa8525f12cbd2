"""Hugging Face Jobs: ``hf jobs run`` command lines, with the bucket as a volume.

Several machines are several jobs of one network group, in which they reach each other by name
(https://huggingface.co/docs/huggingface_hub/guides/jobs).
"""

import math
import re
import shlex

from ptft.errors import UsageError
from ptft.launch.job import MOUNTED, LaunchJob, Ranks, program

__all__ = ["BUCKETS_OF_THE_HUB", "hf_jobs_commands", "hf_jobs_script"]

BUCKETS_OF_THE_HUB = r"(hf://buckets/[^/]+/[^/]+)"
"""Addresses that HF Jobs mount; the group is the bucket."""


def hf_jobs_script(job: LaunchJob) -> str:
    """The commands as a shell script, one a machine.

    Raises:
        UsageError: as :func:`hf_jobs_commands`.
    """
    lines = [shlex.join(command) for command in hf_jobs_commands(job)]
    return "\n".join(["#!/bin/sh", "set -eu", *lines]) + "\n"


def hf_jobs_commands(job: LaunchJob) -> list[list[str]]:
    """The words of each command.

    Raises:
        UsageError: there is no such machine, or the launch file asks for what a job does not have.
    """
    launch = job.launch
    if launch.image is None:
        raise UsageError("image: missing; allowed: a container image with ptft, best by digest")
    group = f"ptft-{job.name}"
    return [_command(job, node, group) for node in range(job.nodes * job.workers)]


def _command(job: LaunchJob, node: int, group: str) -> list[str]:
    launch = job.launch
    words = ["hf", "jobs", "run", "--detach", "--name", _name(job, node)]
    words += ["--flavor", _flavor(job)]
    if launch.hours is not None:
        words += ["--timeout", f"{math.ceil(60 * launch.hours)}m"]
    words += ["--attempts", str(launch.retries + 1)]
    if launch.hf_jobs.namespace is not None:
        words += ["--namespace", launch.hf_jobs.namespace]
    for name, value in launch.env.items():
        words += ["--env", f"{name}={value}"]
    for name in launch.secrets:
        words += ["--secrets", name]
    if launch.mirror is not None and (found := re.match(BUCKETS_OF_THE_HUB, launch.mirror)):
        words += ["--volume", f"{found[1]}:{MOUNTED}"]
    ranks = Ranks()
    if job.nodes > 1:
        words += ["--network-group", group, "--network-alias", f"node-{node}"]
        ranks = Ranks(head='"${HF_NETWORK_GROUP_PREFIX}node-0"', node=str(node))
    return [*words, "--", str(launch.image), "bash", "-c", program(job, ranks)]


def _name(job: LaunchJob, node: int) -> str:
    return f"{job.name}-{node}" if job.nodes * job.workers > 1 else job.name


def _flavor(job: LaunchJob) -> str:
    if job.launch.hf_jobs.flavor is not None:
        return job.launch.hf_jobs.flavor
    machine = job.launch.machine
    if machine is None:
        return "cpu-upgrade"
    flavours = machine.card.hf_jobs
    if machine.count not in flavours:
        counts = ", ".join(f"{machine.key}x{count}" for count in flavours) or "another card"
        raise UsageError(
            f"gpus: {machine.label!r}: HF Jobs have no such machine; allowed: {counts}, or "
            "hf_jobs.flavor, as `hf jobs hardware` lists them"
        )
    return flavours[machine.count]
