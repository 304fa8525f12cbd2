"""A recipe as each system takes it, and its way to that system's own client."""

import os
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from ptft.errors import LaunchError, UsageError
from ptft.launch.hf_jobs import BUCKETS_OF_THE_HUB, hf_jobs_commands, hf_jobs_script
from ptft.launch.job import LaunchJob, plan_job
from ptft.launch.kubernetes import Form, kubernetes_objects
from ptft.launch.section import LaunchFile
from ptft.launch.skypilot import BUCKETS, skypilot_task
from ptft.launch.slurm import slurm_script

__all__ = ["Rendered", "System", "render_launch", "submit", "write_rendered"]


class System(StrEnum):
    """Where a recipe can be launched."""

    SKYPILOT = "skypilot"
    SLURM = "slurm"
    KUBERNETES = "kubernetes"
    HF_JOBS = "hf-jobs"


_INSTALL = {
    "sky": "pip install skypilot, in an environment of its own",
    "sbatch": "Slurm's client; run this where your cluster has it",
    "kubectl": "https://kubernetes.io/docs/tasks/tools",
    "hf": "pip install huggingface_hub",
}


@dataclass(frozen=True)
class Rendered:
    """What a system takes.

    Attributes:
        file: a name for it.
        text: of the file.
        commands: that hand it over; FILE stands for the file's path.
        notes: what the launch file says and this system is not told, one a line.
        job: what it was made of.
    """

    file: str
    text: str
    commands: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...]
    job: LaunchJob


def render_launch(
    source: str,
    overrides: Sequence[str],
    launch: LaunchFile,
    system: System,
    *,
    form: Form = Form.JOB,
) -> Rendered:
    """A recipe as ``system`` takes it.

    Args:
        source: a YAML file or a built-in recipe.
        overrides: of the recipe.
        form: of Kubernetes: which object.

    Raises:
        RecipeError: of the recipe.
        UsageError: the launch file lacks what the system needs, or asks for what it does not have.
    """
    if form is not Form.JOB and system is not System.KUBERNETES:
        raise UsageError(f"--form {form}: of kubernetes alone; allowed: no --form with {system}")
    if system is System.SLURM:
        job = plan_job(source, overrides, launch, runs="runs", shared=True)
        text, file = slurm_script(job), f"{job.name}.sbatch"
        commands = [["sbatch", "FILE"]]
    elif system is System.SKYPILOT:
        job = plan_job(source, overrides, launch, runs="/tmp/ptft", mounts=BUCKETS)  # noqa: S108
        text, file = skypilot_task(job), f"{job.name}.sky.yaml"
        secrets = [word for name in launch.secrets for word in ("--secret", name)]
        commands = [["sky", "jobs", "launch", "--yes", "--detach-run", *secrets, "FILE"]]
    elif system is System.KUBERNETES:
        runs = "/runs" if launch.kubernetes.claim is not None else "/tmp/ptft"  # noqa: S108
        shared = launch.kubernetes.claim is not None
        job = plan_job(source, overrides, launch, runs=runs, shared=shared)
        text, file = kubernetes_objects(job, form), f"{job.name}.{form}.yaml"
        commands = [["kubectl", "apply", "-f", "FILE"]]
    else:
        job = plan_job(
            source,
            overrides,
            launch,
            runs="/tmp/ptft",  # noqa: S108 - a machine of its own
            mounts=BUCKETS_OF_THE_HUB,
            minutes=_minutes(launch),
        )
        text, file, commands = hf_jobs_script(job), f"{job.name}.hf-jobs.sh", hf_jobs_commands(job)
    notes = tuple(_passed_over(job, system))
    return Rendered(file, text, tuple(tuple(words) for words in commands), notes, job)


def write_rendered(rendered: Rendered, folder: Path) -> Path:
    """Write it into a folder, which is made where it is not there; a file of that name is replaced.

    Returns:
        The file.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / rendered.file
    path.write_text(rendered.text, encoding="utf-8")
    if path.suffix == ".sh":
        path.chmod(0o755)
    return path


def submit(rendered: Rendered, folder: Path | None = None) -> None:
    """Hand it to the system's own client, whose output is shown as it comes.

    Args:
        folder: where the file is kept; None: it is not.

    Raises:
        LaunchError: the client is not installed here, or refused.
        UsageError: a secret that it takes from the environment is not there.
    """
    client = rendered.commands[0][0]
    if shutil.which(client) is None:
        raise LaunchError(f"{client} is not installed here; it comes by: {_INSTALL[client]}")
    if client in ("sky", "hf"):
        for name in rendered.job.launch.secrets:
            if name not in os.environ:
                raise UsageError(
                    f"secrets: {name!r}: not set here, and {client} takes it from here"
                )
    with tempfile.TemporaryDirectory() as made:
        path = write_rendered(rendered, Path(made) if folder is None else folder)
        for words in rendered.commands:
            command = [str(path) if word == "FILE" else word for word in words]
            code = subprocess.run(command, check=False).returncode
            if code:
                shown = shlex.join(command[:4])
                raise LaunchError(f"{shown} ... ended with {code}; what it said stands above")


def _minutes(launch: LaunchFile) -> float | None:
    """Of HF Jobs, which give no notice: the run stops by itself before its time is over."""
    if launch.hours is None:
        return None
    minutes = 60 * launch.hours - launch.grace_seconds / 60
    if minutes < 1:
        raise UsageError(
            f"hours: {launch.hours}: grace_seconds: {launch.grace_seconds} of it are kept for the "
            "last checkpoint; allowed: an hours that leaves a minute or more"
        )
    return minutes


def _passed_over(job: LaunchJob, system: System) -> list[str]:
    """Keys of the launch file that the system is not told, with what it does."""
    launch = job.launch
    said = {
        System.SLURM: {
            "image": "Slurm runs what slurm.setup puts on the PATH",
            "spot": "Slurm takes jobs away by its partitions and qos: slurm.partition, slurm.qos",
        },
        System.SKYPILOT: {"hours": "SkyPilot has no time limit; run.max_minutes=... is ptft's own"},
        System.KUBERNETES: {
            "spot": "kubernetes.node_selector says which nodes these are",
        },
        System.HF_JOBS: {
            "spot": "HF Jobs have no such machines",
            "cpus": "the flavour says how many",
            "memory_gb": "the flavour says how much",
            "disk_gb": "the flavour says how much",
        },
    }[system]
    notes = []
    for key, reason in said.items():
        value = getattr(launch, key)
        told = key == "spot" and system is System.KUBERNETES and launch.kubernetes.node_selector
        if value not in (None, False) and not told:
            notes.append(f"{key}: {value!r}: not used: {reason}")
    if job.nodes > 1 and launch.runs is None and system is not System.SLURM:
        notes.append(
            f"nodes: {job.nodes}: each has a disk of its own for the run; runs: names a folder "
            "that all of them see"
        )
    return notes
