"""What a process's part of a run has beside its steps: what stops it, and the run's mirror."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from ptft.distributed import World
from ptft.errors import MirrorError
from ptft.recipe import Recipe, RunSection
from ptft.runs.data_record import RunOptions
from ptft.runs.folder import RunRecord
from ptft.runs.mirror import Mirror
from ptft.runs.opening import open_together
from ptft.speech import say
from ptft.train.signals import Deadline, Stop

__all__ = ["RunPart", "begin_part", "mirrored", "open_folder"]


@dataclass
class RunPart:
    """A part of a run, or of a sequence and the run of its stage.

    Attributes:
        stop: what ends it before its end.
        mirror: where it is copied to; None on ranks other than the first.
    """

    stop: Stop
    mirror: Mirror | None = None


@contextmanager
def begin_part(section: RunSection, options: RunOptions, world: World) -> Iterator[RunPart]:
    """Within, signals are noted; the first rank decides when time is over."""
    limit = section.max_minutes if world.first else None
    with Stop(None if limit is None else Deadline(limit, options.began)) as stop:
        yield RunPart(stop)


@contextmanager
def mirrored(
    part: RunPart, section: RunSection, folder: Path, world: World, log: logging.Logger
) -> Iterator[None]:
    """Within, a run folder has the mirror that the recipe names, if any; at the end, also that of
    an error, the first rank waits until its last state is there.

    Raises:
        MirrorError: the mirror cannot be reached at the start; or a finished run is not in it.
        TrainingError: then on the other ranks.
    """
    if section.mirror is None:
        yield
        return

    def begin() -> None:
        mirror = part.mirror = Mirror(section, folder, log)
        part.stop.watch = mirror.trouble
        if part.stop.deadline is not None:
            part.stop.deadline.more = mirror.expected_seconds

    def finish() -> None:
        if part.mirror is not None:
            part.mirror.finish()

    world.on_first(begin)
    try:
        yield
        world.on_first(finish)
    except MirrorError:
        raise
    except Exception:
        with suppress(Exception):  # the error is what is told
            finish()
        raise
    finally:
        if part.mirror is not None:
            part.mirror.close()


def open_folder(
    recipe: Recipe, options: RunOptions, world: World, log: logging.Logger
) -> tuple[Path, RunRecord | None]:
    """As :func:`ptft.runs.opening.open_together`; whether the run begins or goes on is said."""
    folder, record = open_together(
        recipe, world, resume=options.resume, accept=options.accept, say=partial(say, log)
    )
    if options.resume == "auto":
        say(log, f"{folder}: {'begins; no run was there' if record is None else 'goes on'}")
    return folder, record
