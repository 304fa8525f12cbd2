"""An sbatch script: an array where it is a comparison, requeued where a run is to go on.

Directives are those of https://slurm.schedmd.com/sbatch.html.
"""

import math
import shlex

from ptft.launch.job import GO_ON, LOST, LaunchJob, Ranks, program

__all__ = ["slurm_script"]


def slurm_script(job: LaunchJob) -> str:
    """The script, for ``sbatch``."""
    launch, slurm = job.launch, job.launch.slurm
    lines = ["#!/bin/bash", *(f"#SBATCH --{option}" for option in _options(job))]
    lines += [f"export {name}={shlex.quote(value)}" for name, value in launch.env.items()]
    if slurm.setup:
        lines += [slurm.setup.rstrip("\n")]
    head = '"$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)"'
    inner = program(job, Ranks(head=head, node='"$SLURM_NODEID"'))
    mark = "PTFT_PROGRAM"
    while mark in inner.splitlines():
        mark += "_"
    codes = "|".join(str(code) for code in GO_ON)
    lines += [
        f"program=$(cat <<'{mark}'\n{inner}{mark}\n)",
        'srun --kill-on-bad-exit=1 bash -c "$program" && code=0 || code=$?',
        "# a run that saved and stopped goes on in the next place that is free",
        f'case $code in {codes}) scontrol requeue "$SLURM_JOB_ID" ;; esac',
        *(_again_without_one(job) if job.nodes > 1 else ()),
        "exit $code",
    ]
    return "\n".join(lines) + "\n"


def _again_without_one(job: LaunchJob) -> list[str]:
    """Lines for a node that is gone, where Slurm has not noticed yet. Of all nodes srun gives the
    highest code alone, so one that fails each time looks the same: this ends."""
    few = f'[ "${{SLURM_RESTART_COUNT:-0}}" -lt {job.launch.retries} ]'
    return [
        "# another node is gone, or has failed: again, where it did not start too often already",
        f'if [ $code = {LOST} ] && {few}; then scontrol requeue "$SLURM_JOB_ID"; fi',
    ]


def _options(job: LaunchJob) -> list[str]:
    launch, slurm = job.launch, job.launch.slurm
    options = [f"job-name={job.name}", f"nodes={job.nodes}", "ntasks-per-node=1"]
    if job.workers > 1:
        options.append(f"array=0-{job.workers - 1}")
    if launch.machine is not None:
        kind = f"{slurm.gpu_type}:" if slurm.gpu_type is not None else ""
        options.append(f"gpus-per-node={kind}{launch.machine.count}")
    if launch.cpus is not None:
        options.append(f"cpus-per-task={launch.cpus}")
    if launch.memory_gb is not None:
        options.append(f"mem={launch.memory_gb}G")
    if launch.disk_gb is not None:
        options.append(f"tmp={launch.disk_gb}G")
    if launch.hours is not None:
        options.append(f"time={math.ceil(60 * launch.hours)}")  # minutes
    for key in ("partition", "account", "qos"):
        if (value := getattr(slurm, key)) is not None:
            options.append(f"{key}={value}")
    number = "%A-%a" if job.workers > 1 else "%j"
    options += [f"signal=USR2@{slurm.warn_seconds}", "requeue", "open-mode=append"]
    return [*options, f"output={job.name}-{number}.log"]
