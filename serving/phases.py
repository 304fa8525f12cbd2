"""Where a request's seconds go: its body being read, its items being decoded, waiting, and in a
tower, its answer being written.

A phase lasts while anything of the request is in it, so that the phases of one with many items may
overlap, and none is longer than the request.
"""

import functools
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Literal, ParamSpec, TypeVar

__all__ = ["NOT_TIMED", "PHASES", "Lasted", "Phase", "Phases", "reads"]

Phase = Literal["read", "decode", "queue", "engine", "write"]
PHASES: tuple[Phase, ...] = ("read", "decode", "queue", "engine", "write")

P = ParamSpec("P")
R = TypeVar("R")


@dataclass(slots=True)
class Lasted:
    """A phase of a request.

    Attributes:
        first, last: when it began first and ended last, as ``time.perf_counter`` has it.
        seconds: that it lasted, without the gaps between.
    """

    first: float
    last: float
    seconds: float = 0.0


class Phases:
    """Of one request; all methods belong to one event loop.

    Attributes:
        lasted: what is over, by phase.
    """

    def __init__(self) -> None:
        self.lasted: dict[Phase, Lasted] = {}
        self._open: dict[Phase, list[float]] = {}  # when it began, and items inside

    def enter(self, phase: Phase) -> None:
        """An item begins it."""
        if (found := self._open.get(phase)) is not None:
            found[1] += 1
        else:
            self._open[phase] = [time.perf_counter(), 1]

    def leave(self, phase: Phase) -> None:
        """An item is through; nothing where the request is over."""
        if (found := self._open.get(phase)) is None:
            return
        if found[1] > 1:
            found[1] -= 1
        else:
            self._end(phase, self._open.pop(phase)[0])

    def finish(self) -> None:
        """The request is over, wherever its items are."""
        while self._open:
            phase, (since, _) = self._open.popitem()
            self._end(phase, since)

    def _end(self, phase: Phase, since: float) -> None:
        now = time.perf_counter()
        if (lasted := self.lasted.get(phase)) is None:
            self.lasted[phase] = Lasted(since, now, now - since)
        else:
            lasted.last = now
            lasted.seconds += now - since


class _NotTimed(Phases):
    """Of a request that nobody measures."""

    def enter(self, phase: Phase) -> None:
        pass

    def leave(self, phase: Phase) -> None:
        pass


NOT_TIMED: Phases = _NotTimed()
"""For all whose phases nobody asks for."""


def reads(function: Callable[P, Awaitable[R]]) -> Callable[P, Awaitable[R]]:
    """What reads a request's body: a coroutine function whose first argument is an ``Asked``."""

    @functools.wraps(function)
    async def timed(*arguments: P.args, **more: P.kwargs) -> R:
        asked: Any = arguments[0]
        phases: Phases = asked.ticket.phases
        phases.enter("read")
        try:
            return await function(*arguments, **more)
        finally:
            phases.leave("read")

    return timed
