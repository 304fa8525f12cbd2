"""The run folder: where a run lies, whose it is, and how far it has come."""

import platform
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from ptft import __version__
from ptft.artifact import RunFiles, read_json, write_atomic, write_json
from ptft.checkpoint import TrainProgress
from ptft.data.reading.faults import Tally
from ptft.distributed import World
from ptft.errors import ArtifactError, UsageError
from ptft.files.own import is_own_file
from ptft.model.licence import base_licence
from ptft.recipe import (
    EvaluateItem,
    Recipe,
    deciding_values,
    dump_recipe,
    load_foreign,
    recipe_digest,
)

__all__ = [
    "RunRecord",
    "RunStatus",
    "note_test_read",
    "open_run",
    "open_together",
    "read_run",
    "start_run",
    "start_together",
    "write_run",
]


class RunStatus:
    """What ``run.json`` says of a run."""

    RUNNING = "running"  # or killed: a checkpoint tells how far it came
    STOPPED = "stopped"  # by a signal, after a checkpoint
    FINISHED = "finished"
    FAILED = "failed"  # by an error; --resume goes on from the last checkpoint


@dataclass
class RunRecord:
    """``run.json``.

    Attributes:
        recipe_digest: of the resolved recipe beside it.
        weights_digest: sha256 of the final weights, once they are written.
        files: name -> {"sha256", "size"} of every file in ``final``, once they are written; empty
            of a run of before this was recorded.
        features: towers whose kept features are read; None: not decided yet.
        seen, total: samples.
        skipped, faults: samples that could not be read, in all and by the kind of fault.
        seconds: of training, over all its parts; without evaluations and checkpoints.
        notes: facts about how its last part ran, one line each.
        error: what it failed of.
        licence: of the weights that it starts from, see :mod:`ptft.model.licence`; None: a run of
            before this was recorded.
        best: which validation the final model is of, where the best one is kept, and its figures.
        test_reads: each time that test splits were read: when, by which command, for which
            evaluations, and of which step's model.
        accepted: each time that the run went on with other data: when, after which step, and what
            had changed.
    """

    name: str
    recipe_digest: str
    status: str
    started: str
    versions: dict[str, str]
    device: str = ""
    precision: str = ""
    features: list[str] | None = None
    step: int = 0
    seen: int = 0
    total: int = 0
    skipped: int = 0
    faults: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0
    weights_digest: str | None = None
    files: dict[str, dict[str, Any]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    error: str = ""
    licence: str | None = None
    best: dict[str, Any] = field(default_factory=dict)
    test_reads: list[dict[str, Any]] = field(default_factory=list)
    accepted: list[dict[str, Any]] = field(default_factory=list)

    def follow(self, progress: TrainProgress) -> None:
        """Note where the run stands, as its newest checkpoint has it."""
        self.step, self.seen, self.skipped = progress.step, progress.seen, progress.skipped
        self.faults = Tally.restore(progress.faults).counts
        self.seconds = round(progress.seconds, 3)


_RECORD = TypeAdapter(RunRecord)


def open_run(recipe: Recipe, *, resume: bool) -> tuple[Path, RunRecord | None]:
    """The folder for a run of this recipe, and its record if it goes on with one.

    Args:
        resume: go on with the newest run of the same recipe (or the one at ``run.dir``).

    Raises:
        UsageError: the folder is taken, or holds a run of another recipe, or there is none to
            go on with.
    """
    if not resume:
        folder = Path(recipe.run.dir) if recipe.run.dir else _free_folder(recipe.name)
        if recipe.run.dir and _is_taken(folder):
            raise UsageError(
                f"run.dir: {str(folder)!r}: something is there already; --resume goes on with a "
                "run, run.dir=... starts another one elsewhere"
            )
        return folder, None
    candidates = [Path(recipe.run.dir)] if recipe.run.dir else _numbered(recipe.name)
    problems, elsewhere = [], []
    for folder in candidates:
        if not (folder / RunFiles.RUN).is_file():
            problems.append(f"{folder}: no run is there")
            continue
        recorded = load_foreign(folder / RunFiles.RECIPE)
        difference = _difference(recipe, recorded)
        if difference is None:
            return folder, read_run(folder)
        if (folder / RunFiles.DATA).is_file():
            # what the data hold is recorded, so it does not matter where they lie
            difference = _difference(recipe, recorded, places=False)
            if difference is None:
                elsewhere.append(folder)
                continue
        problems.append(f"{folder}: a run of another recipe: {difference}")
    if elsewhere:
        return elsewhere[0], read_run(elsewhere[0])
    raise UsageError("--resume: no run to go on with", *(f"  {problem}" for problem in problems))


def open_together(recipe: Recipe, world: World, *, resume: bool) -> tuple[Path, RunRecord | None]:
    """As :func:`open_run`, by the first rank for all.

    Processes that torchrun started again go on with the run that they were in, or start one if it
    had not come to that.

    Raises:
        UsageError: as :func:`open_run`, on the first rank.
        TrainingError: then on the others.
    """

    return world.on_first(
        lambda: _go_on(recipe) if world.restarts else open_run(recipe, resume=resume)
    )


def _go_on(recipe: Recipe) -> tuple[Path, RunRecord | None]:
    try:
        folder, record = open_run(recipe, resume=True)
    except UsageError:
        return open_run(recipe, resume=False)
    if record is not None and record.status == RunStatus.FINISHED and not recipe.run.dir:
        return open_run(recipe, resume=False)  # an earlier run; a finished one is not started again
    return folder, record


def start_run(folder: Path, recipe: Recipe, *, device: str, total: int) -> RunRecord:
    """Create a run folder with its resolved recipe and first record."""
    folder.mkdir(parents=True, exist_ok=True)
    if (folder / RunFiles.RUN).exists():
        raise UsageError(
            f"{folder}: another run has just begun there; run.dir=... starts elsewhere"
        )
    write_atomic(folder / RunFiles.RECIPE, dump_recipe(recipe))
    record = RunRecord(
        name=recipe.name,
        recipe_digest=recipe_digest(recipe),
        status=RunStatus.RUNNING,
        started=datetime.now(UTC).isoformat(timespec="seconds"),
        versions=_versions(),
        device=device,
        precision=recipe.optim.precision,
        total=total,
        licence=base_licence(recipe),
    )
    write_run(folder, record)
    return record


def start_together(
    folder: Path, recipe: Recipe, world: World, *, device: str, total: int
) -> RunRecord:
    """As :func:`start_run`, by the first rank for all."""
    return world.on_first(lambda: start_run(folder, recipe, device=device, total=total))


def read_run(folder: Path) -> RunRecord:
    """Read ``run.json``.

    Raises:
        ArtifactError: it is absent, or has other keys or values of other types.
    """
    values = read_json(folder / RunFiles.RUN)
    try:
        RunRecord(**values)
        return _RECORD.validate_python(values)
    except TypeError as error:
        raise ArtifactError(f"{folder / RunFiles.RUN}: {error}") from None
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        key = ".".join(str(part) for part in first["loc"])
        raise ArtifactError(f"{folder / RunFiles.RUN}: {key}: {first['msg']}") from None


def write_run(folder: Path, record: RunRecord) -> None:
    """Write ``run.json`` atomically."""
    write_json(folder / RunFiles.RUN, asdict(record))


def note_test_read(
    folder: Path, record: RunRecord, items: Sequence[EvaluateItem], *, by: str
) -> None:
    """Write into ``run.json`` that test splits are about to be read, if ``items`` do that.

    Another user's run is left as it is: what its test splits are read for is not its own affair.

    Args:
        by: the command.
    """
    read = [item.label for item in items if item.split == "test"]
    if not read or not is_own_file(folder / RunFiles.RUN):
        return
    at = datetime.now(UTC).isoformat(timespec="seconds")
    record.test_reads.append({"at": at, "by": f"ptft {by}", "step": record.step, "read": read})
    write_run(folder, record)


def _is_taken(folder: Path) -> bool:
    """Whether anything lies there but the lock of a run that never began."""
    return folder.exists() and any(path.name != RunFiles.LOCK for path in folder.iterdir())


def _free_folder(name: str) -> Path:
    taken = _numbered(name)
    base = Path("runs") / name
    if not taken and not base.exists():
        return base
    return base.with_name(f"{name}-{_number(taken[0], name) + 1 if taken else 2}")


def _numbered(name: str) -> list[Path]:
    """``runs/name``, ``runs/name-2``, ...: those that exist, newest first."""
    pattern = re.compile(re.escape(name) + r"(-\d+)?")
    found = [path for path in Path("runs").glob(f"{name}*") if pattern.fullmatch(path.name)]
    return sorted(found, key=lambda path: _number(path, name), reverse=True)


def _number(path: Path, name: str) -> int:
    return int(path.name.removeprefix(name).removeprefix("-") or 1)


def _difference(given: Recipe, recorded: Recipe, *, places: bool = True) -> str | None:
    """The first key in which two recipes differ, ``run`` and a measured precision apart.

    Args:
        places: whether it matters where data and models lie.
    """
    if given.optim.precision == "auto":
        optim = given.optim.model_copy(update={"precision": recorded.optim.precision})
        given = given.model_copy(update={"optim": optim})
    if recipe_digest(given) == recipe_digest(recorded):
        return None
    here, there = (
        dict(_leaves(values if places else _placeless(values)))
        for values in (deciding_values(given), deciding_values(recorded))
    )
    for key in [*here, *there]:
        if here.get(key) != there.get(key):
            return f"{key} is {there.get(key)!r} there and {here.get(key)!r} here"
    return "they differ" if places else None


def _placeless(values: Any, key: str = "") -> Any:
    """A recipe's values with a word in place of each path of data or of a model."""
    if isinstance(values, dict):
        return {name: _placeless(value, name) for name, value in values.items()}
    if key == "parts" or (isinstance(values, list) and values and isinstance(values[0], dict)):
        return [_placeless(value) for value in values]
    is_path = key in ("train", "val", "test") and isinstance(values, str | list)
    is_path |= key in ("classes", "from") and isinstance(values, str)
    return "somewhere" if is_path else values


def _leaves(values: Any, prefix: str = "") -> list[tuple[str, Any]]:
    if isinstance(values, dict):
        items = [(f"{prefix}.{key}" if prefix else str(key), v) for key, v in values.items()]
        return [leaf for key, value in items for leaf in _leaves(value, key)]
    return [(prefix, values)]


def _versions() -> dict[str, str]:
    names = ("torch", "open_clip_torch", "timm", "transformers", "pillow", "numpy")
    return {
        "ptft": __version__,
        "python": platform.python_version(),
        **{name: version(name) for name in names},
    }
