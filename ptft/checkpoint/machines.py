"""A run folder on several machines: whether all of them see it, and checkpoints for those that do
not, sent by the first rank, which alone writes."""

import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ptft.distributed import World
from ptft.errors import CheckpointError, TrainingError, UsageError

__all__ = ["SEEN_WITHIN", "check_shared", "seen_by_all"]

_BLOCK = 64 << 20  # bytes that are sent at once
SEEN_WITHIN = 30.0  # seconds until a new file is seen over a network disk


def check_shared(file: Path, world: World, *, why: str) -> None:
    """Refuse a run folder that a machine does not see. Every rank calls it.

    Args:
        file: in the run folder, written by the first rank.
        why: all of them have to.

    Raises:
        UsageError: (on every rank) one does not.
    """
    end = time.monotonic() + SEEN_WITHIN
    while not (seen := file.is_file()) and time.monotonic() < end:
        time.sleep(0.5)
    blind = [rank for rank, sees in enumerate(world.gather_objects(seen)) if not sees]
    if blind:
        raise UsageError(
            f"run.dir: rank {blind[0]} does not see {file}, which rank 0 wrote; {why}; "
            "allowed: a folder on a disk that all machines share"
        )


@contextmanager
def seen_by_all(path: Path, world: World) -> Iterator[Path]:
    """Within, where a rank finds a checkpoint of the first one: at its place, or in a copy that is
    sent to its machine. Every rank calls it.

    Raises:
        CheckpointError: (on every rank) it cannot be read there or written here.
    """
    lacks = not path.is_dir()
    if not any(world.gather_objects(lacks)):
        yield path
        return
    copy = path.with_name(f".{path.name}.copy.partial")
    makes = lacks and world.local_rank == 0
    try:
        _send(path, copy if makes else None, world)
        yield copy if lacks else path
    finally:
        if makes:
            shutil.rmtree(copy, ignore_errors=True)


def _send(path: Path, copy: Path | None, world: World) -> None:
    """The first rank's files to each rank that has a place for them; errors are told when all is
    sent, so that no rank waits for another."""
    error = ""
    if copy is not None:
        shutil.rmtree(copy, ignore_errors=True)
    try:
        for name, size in world.on_first(lambda: _sizes(path)):
            for start in range(0, max(1, size), _BLOCK):
                block = world.on_first(lambda name=name, start=start: _read(path / name, start))  # type: ignore[misc]
                if copy is not None and not error:
                    error = _append(copy / name, block)
    except (OSError, TrainingError) as raised:
        raise CheckpointError(f"{path}: cannot be sent to the other machines: {raised}") from raised
    if problems := [one for one in world.gather_objects(error) if one]:
        raise CheckpointError(f"{path}: cannot be copied to another machine: {problems[0]}")


def _sizes(path: Path) -> list[tuple[str, int]]:
    files = sorted(file for file in path.rglob("*") if file.is_file())
    return [(file.relative_to(path).as_posix(), file.stat().st_size) for file in files]


def _read(file: Path, start: int) -> bytes:
    with file.open("rb") as stream:
        stream.seek(start)
        return stream.read(_BLOCK)


def _append(file: Path, block: bytes) -> str:
    """What went wrong, in words."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("ab") as stream:
            stream.write(block)
    except OSError as error:
        return str(error)
    return ""
