"""What a process's part of a run has beside its steps: what stops it, and the run's mirror.

It stops at the next step when asked to, instead of in the middle of one: by a signal, by the clock,
or by what watches the run.
"""

import logging
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Self

from ptft.distributed import World
from ptft.errors import MirrorError
from ptft.recipe import Recipe, RunSection
from ptft.runs.data_record import RunOptions
from ptft.runs.folder import RunRecord
from ptft.runs.mirror import Mirror
from ptft.runs.opening import open_together
from ptft.speech import say

__all__ = ["Deadline", "Reason", "RunPart", "Stop", "begin_part", "mirrored", "open_folder"]

_ENDING: tuple[int, ...] = (signal.SIGTERM, signal.SIGINT)
_WARNING = tuple(getattr(signal, name) for name in ("SIGUSR1", "SIGUSR2") if hasattr(signal, name))
_PASSED_ON = 3.0  # seconds
_MARGIN, _MOST = 0.05, 120.0  # of the limit, and seconds: what is left for a checkpoint


@dataclass(frozen=True)
class Reason:
    """Why a run stops.

    Attributes:
        signal: its number, where one did it.
        late: its time is over, or SIGUSR1 or SIGUSR2 warned of that.
        error: what went wrong, in words.
    """

    signal: int | None = None
    late: bool = False
    error: str = ""


def _nothing() -> float:
    return 0.0


class Deadline:
    """When a part of a run has to be over, and whether another step still fits before that.

    Left for the last step and its checkpoint is as long as the longest step took so far (with the
    evaluations and the copies for checkpoints between two), and 5 % of the limit, at most two
    minutes.

    Args:
        minutes: of the limit.
        began: when they began, by ``time.monotonic``.

    Attributes:
        upload, saving: seconds that are to be left beside that, asked anew each time.
    """

    def __init__(self, minutes: float, began: float) -> None:
        self.upload: Callable[[], float] = _nothing
        self.saving: Callable[[], float] = _nothing
        self._end = began + 60 * minutes
        self._margin = min(_MOST, _MARGIN * 60 * minutes)
        self._longest = 0.0
        self._before: float | None = None

    def is_near(self) -> bool:
        """Whether the step that is being taken is to be the last; asked once a step."""
        now = time.monotonic()
        if self._before is not None:
            self._longest = max(self._longest, now - self._before)
        self._before = now
        left = self._longest + self._margin + self.upload() + self.saving()
        return now + left > self._end


class Stop:
    """Within this context signals are noted: SIGUSR1 and SIGUSR2, and while it is ``armed`` SIGTERM
    and SIGINT too, which act at once before and after that.

    A second SIGTERM or SIGINT acts as it always did, for those who mean it, unless it comes within
    three seconds: launchers pass on what their whole group was sent already.

    Args:
        deadline: the run's, on the rank that decides it.
        watch: gives what went wrong outside of the steps, or None.

    Attributes:
        reason: why to stop; None: nothing asked to.
    """

    def __init__(
        self, deadline: Deadline | None = None, watch: Callable[[], str | None] | None = None
    ) -> None:
        self.reason: Reason | None = None
        self.deadline = deadline
        self.watch = watch
        self._armed = False
        self._noted = 0.0
        self._before: dict[int, object] = {}

    def __enter__(self) -> Self:
        for number in (*_ENDING, *_WARNING):
            try:
                self._before[number] = signal.signal(number, self._note)
            except ValueError:  # not in the main thread: its owner handles signals
                break
        return self

    def __exit__(self, *raised: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    @contextmanager
    def armed(self) -> Iterator[None]:
        """Within, every signal waits for the end of the step."""
        self._armed = True
        try:
            yield
        finally:
            self._armed = False

    def agree(self, world: World) -> bool:
        """Whether any rank is to stop; each then has a reason. Every rank calls it."""
        reasons = [reason for reason in world.gather_objects(self.reason) if reason is not None]
        self.reason = self.reason or next(iter(reasons), None)
        return bool(reasons)

    def asked(self) -> bool:
        """Whether this process is to stop; asked once a step."""
        if self.reason is None and self.watch is not None and (error := self.watch()) is not None:
            self.reason = Reason(error=error)
        if self.reason is None and self.deadline is not None and self.deadline.is_near():
            self.reason = Reason(late=True)
        return self.reason is not None

    def _note(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if (self._armed and self.reason is None) or number in _WARNING:
            self._noted = self._noted or now
            self.reason = self.reason or Reason(number, late=number in _WARNING)
        elif not self._armed or now - self._noted > _PASSED_ON:
            signal.signal(number, self._before[number])  # type: ignore[arg-type]
            signal.raise_signal(number)  # in this thread: of another one it might come later


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
            part.stop.deadline.upload = mirror.expected_seconds

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
