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
        self._inside: dict[Phase, int] = {}
        self._since: dict[Phase, float] = {}

    def enter(self, phase: Phase) -> None:
        """An item begins it."""
        inside = self._inside.get(phase, 0)
        if not inside:
            self._since[phase] = time.perf_counter()
        self._inside[phase] = inside + 1

    def leave(self, phase: Phase) -> None:
        """An item is through; nothing where the request is over."""
        inside = self._inside.get(phase, 0)
        if inside == 1:
            self._end(phase)
        if inside:
            self._inside[phase] = inside - 1

    def finish(self) -> None:
        """The request is over, wherever its items are."""
        for phase, inside in self._inside.items():
            if inside:
                self._end(phase)
        self._inside = {}

    def _end(self, phase: Phase) -> None:
        since, now = self._since[phase], time.perf_counter()
        lasted = self.lasted.setdefault(phase, Lasted(since, now))
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
