"""The run folder: where a run lies, whose it is, and how far it has come. One process at a time
trains in it."""

import os
import platform
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from filelock import lock_descriptor
from pydantic import TypeAdapter, ValidationError

from ptft import __version__
from ptft.artifact import RunFiles, read_json, write_atomic, write_json
from ptft.checkpoint import TrainProgress
from ptft.data.reading.faults import Tally
from ptft.data.reading.order import ORDER, OrderVersion
from ptft.distributed import World
from ptft.errors import ArtifactError, UsageError
from ptft.files.own import check_own_tree, is_own_file, open_own
from ptft.model.licence import base_licence
from ptft.recipe import EvaluateItem, Recipe, dump_recipe, recipe_digest

__all__ = [
    "RunRecord",
    "RunStatus",
    "check_own_run",
    "lock_run",
    "note_test_read",
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
        order: the version of the order in which samples come; 1 where that was not recorded yet.
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
        accepted: each time that the run went on with other data or another recipe: when, after
            which step, and what had changed.
    """

    name: str
    recipe_digest: str
    status: str
    started: str
    versions: dict[str, str]
    device: str = ""
    precision: str = ""
    features: list[str] | None = None
    order: OrderVersion = 1
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
        order=ORDER,
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


def _versions() -> dict[str, str]:
    names = ("torch", "open_clip_torch", "timm", "transformers", "pillow", "numpy")
    return {
        "ptft": __version__,
        "python": platform.python_version(),
        **{name: version(name) for name in names},
    }


_LINKED = ("wandb",)  # a tracker's own folder, which has links to the newest of its files in it


def check_own_run(folder: Path) -> None:
    """Check that a folder that is to be written into is this user's, as all in it, without links.

    Raises:
        UsageError: naming what is not, and how to make it so.
    """
    try:
        check_own_tree(folder, but=_LINKED)
    except OSError as error:
        raise _not_own(folder, error) from None


def _not_own(folder: Path, error: OSError) -> UsageError:
    return UsageError(
        f"{error.filename or folder}: {error.strerror or error}; a run writes into its own user's "
        f"plain files alone; a copy has only such (cp -rL {folder} COPY), and run.dir names it"
    )


@contextmanager
def lock_run(folder: Path) -> Iterator[None]:
    """Lock a folder inside; the system unlocks it when this process ends, however it does.

    The file stays: to delete a file that another process may be about to lock would give each a
    lock of its own.

    Whatever is in the folder is this user's, and no link: a run that came from elsewhere may hold
    links to any place, and what a run writes and deletes below its folder stays below it.

    Raises:
        UsageError: another process holds it, which is named; or the folder is another user's, or
            something in it is, or is a link.
    """
    path = folder / RunFiles.LOCK
    path.parent.mkdir(parents=True, exist_ok=True)
    check_own_run(folder)
    try:
        descriptor = open_own(path, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise _not_own(folder, error) from None
    try:
        if not lock_descriptor(descriptor, blocking=False):
            holder = ""
            with suppress(OSError):  # Windows lets nobody else read a locked file
                holder = os.read(descriptor, 200).decode(errors="replace").strip()
            raise UsageError(
                f"{folder}: {holder or 'another process'} trains here already; wait for it, stop "
                "it, or give run.dir another folder"
            )
        os.truncate(descriptor, 0)
        os.write(descriptor, f"process {os.getpid()} on {platform.node()}\n".encode())
        yield
    finally:
        os.close(descriptor)
