"""The launch file: where a recipe runs, and nothing of what it does there.

It is no part of a recipe, so that a recipe's digest does not depend on where it ran.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import Field, StringConstraints, TypeAdapter, ValidationError, field_validator

from ptft.cards import Machine, find_machine
from ptft.errors import RecipeError
from ptft.printable import credential_in
from ptft.recipe.explain import explain
from ptft.recipe.load import apply_override
from ptft.recipe.section import Section
from ptft.recipe.yaml_text import MAX_YAML, first_bad_value, read_yaml

__all__ = ["LaunchFile", "launch_json_schema", "load_launch"]

_VARIABLE = r"^[A-Za-z_][A-Za-z0-9_]*$"
_NOT_SHELL = re.compile(r"[\x00-\x1f\x7f]")
Variable = Annotated[str, StringConstraints(pattern=_VARIABLE)]
Word = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.:/@,+-]*$")]
"""A name as these systems have it: no blank, nothing that a shell or a directive reads."""


class SkyPilotSection(Section):
    """What SkyPilot alone is told."""

    infra: Word | None = None
    """Cloud, region and zone: ``aws/us-east-1``; absent: where it is cheapest."""


class SlurmSection(Section):
    """What Slurm alone is told."""

    partition: Word | None = None
    account: Word | None = None
    qos: Word | None = None
    gpu_type: Word | None = None
    """As the cluster calls the card; absent: ``--gpus-per-node`` has the number alone."""
    setup: str = ""
    """Shell lines before the run, as they are: ``module load``, ``source .venv/bin/activate``."""
    warn_seconds: int = Field(default=120, ge=30, le=3600)
    """How long before the time limit the run is told to save and stop."""


class KubernetesSection(Section):
    """What Kubernetes alone is told."""

    namespace: Word | None = None
    secret: Word | None = None
    """The Secret whose keys are the names in ``secrets``."""
    claim: Word | None = None
    """A PersistentVolumeClaim that is mounted at ``runs``; several nodes need ReadWriteMany."""
    service_account: Word | None = None
    node_selector: dict[Word, str] = {}
    tolerate_gpus: bool = True
    """Run on nodes that are kept for GPUs (the taint ``nvidia.com/gpu``)."""
    queue: Word | None = None
    """Kueue's LocalQueue that admits the job."""
    runtime: Word = "torch-distributed"
    """Of a TrainJob: the ClusterTrainingRuntime."""


class HfJobsSection(Section):
    """What Hugging Face Jobs alone is told."""

    namespace: Word | None = None
    """A user or an organisation; absent: yours."""
    flavor: Word | None = None
    """``hf jobs hardware`` lists them; absent: that of ``gpus``."""


class LaunchFile(Section):
    """The machines that a run is given."""

    image: Word | None = None
    """A container image with ptft, best by digest; absent: ptft is installed there (Slurm)."""
    gpus: str | None = None
    """Of each node: ``h100x8``; absent: none."""
    nodes: int = Field(default=1, ge=1, le=512)
    """Machines of one run. A comparison has ``workers`` in their place."""
    workers: int = Field(default=1, ge=1, le=1000)
    """Of a comparison: jobs that share its cells."""
    cpus: int | None = Field(default=None, ge=1)
    """Of each node."""
    memory_gb: int | None = Field(default=None, ge=1)
    """Of each node."""
    disk_gb: int | None = Field(default=None, ge=1)
    """Of each node, for the run and the cache of data."""
    spot: bool = False
    """Machines that may be taken away, and cost less."""
    hours: float | None = Field(default=None, gt=0, le=24 * 90)
    """At most, on the clock; absent: as long as it takes (HF Jobs: its own default)."""
    grace_seconds: int = Field(default=120, ge=10, le=3600)
    """Between the notice that a machine goes and its end: the run saves in it."""
    retries: int = Field(default=3, ge=0, le=100)
    """After a failure that is no preemption; preemptions are not counted."""
    mirror: str | None = None
    """The folder of all runs in a bucket or on a shared disk (``s3://bucket/runs``,
    ``hf://buckets/me/runs``): each run is copied to its own below it, and goes on from there on a
    new machine."""
    runs: str | None = None
    """The folder for runs on the machine. Absent: ``runs`` where the job starts (Slurm), else
    ``/tmp/ptft``. Several nodes need one that all of them see."""
    secrets: list[Variable] = []
    """Names of environment variables. Their values come from your environment or from the system's
    own secrets, and are never written."""
    env: dict[Variable, str] = {}
    """Other settings of the environment, in plain sight."""
    skypilot: SkyPilotSection = SkyPilotSection()
    slurm: SlurmSection = SlurmSection()
    kubernetes: KubernetesSection = KubernetesSection()
    hf_jobs: HfJobsSection = HfJobsSection()

    @field_validator("gpus")
    @classmethod
    def _is_known(cls, given: str | None) -> str | None:
        if given is not None:
            try:
                find_machine(given, "gpus")
            except RecipeError as error:
                raise ValueError(str(error).removeprefix("gpus: ")) from None
        return given

    @field_validator("mirror", "runs")
    @classmethod
    def _is_one_line(cls, given: str | None) -> str | None:
        if given is not None and (not given.strip("/") or _NOT_SHELL.search(given)):
            raise ValueError(f"{given!r}: allowed: a folder, in one line of text")
        return None if given is None else given.rstrip("/")

    @property
    def machine(self) -> Machine | None:
        """The GPUs of a node; None: none."""
        return None if self.gpus is None else find_machine(self.gpus, "gpus")


def load_launch(source: Path | None, settings: Sequence[str] = ()) -> LaunchFile:
    """Read a launch file, with ``a.b=c`` set in it in order.

    Args:
        source: the YAML file; None: every default.
        settings: ``dotted.key=value``, as a recipe's overrides.

    Raises:
        RecipeError: one line a problem, each naming key, value and what is allowed.
    """
    values, where = ({}, "launch file") if source is None else (_read(source), str(source))
    for setting in settings:
        apply_override(values, setting)
    if (bad := first_bad_value(values)) is not None:
        raise RecipeError(f"{where}: {bad}")
    if (found := credential_in(values)) is not None:
        raise RecipeError(
            f"{where}: {found}, which is not shown here; allowed: its name alone, in secrets"
        )
    try:
        return LaunchFile.model_validate(values)
    except ValidationError as error:
        problems = explain(error.errors(include_url=False), values, LaunchFile)
        raise RecipeError(*(f"{where}: {problem}" for problem in problems)) from None


def launch_json_schema() -> dict[str, Any]:
    """JSON Schema of a launch file, for editors."""
    schema = TypeAdapter(LaunchFile).json_schema()
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def _read(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as stream:
            values = read_yaml(stream.read(MAX_YAML + 1).decode("utf-8"))
    except OSError as error:
        raise RecipeError(f"{path}: {error.strerror or error}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path}: not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(values, Mapping):
        raise RecipeError(f"{path}: a launch file is a YAML mapping, not {type(values).__name__}")
    return dict(values)
