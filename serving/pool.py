"""Threads with a fair queue before them and a budget of memory around them.

Heavy and light jobs have ``threads`` places each, so that a small picture does not wait until a
large one is decoded; heavy ones share the budget as well. Where the CPUs do not suffice for all,
threads of heavy jobs come last (their niceness, which on Linux is a thread's own): what is nearly
done is done first. A job that nobody waits for any more does not begin. A job runs in the context
of who asked for it, so that what it logs has the request's id.
"""

import asyncio
import time
from collections.abc import Callable
from contextvars import Context, copy_context
from dataclasses import dataclass
from typing import Any, TypeVar

from serving.lanes import Lanes, Waiting
from serving.phases import NOT_TIMED, Phases
from serving.threads import NICE, Threads, settle

__all__ = ["LIGHT_BYTES", "LIGHT_S", "Pool"]

R = TypeVar("R")

LIGHT_BYTES, LIGHT_S = 8 * 2**20, 0.03
"""A job that is estimated to take no more of either is light."""

_LEAST_S = 0.001  # that a turn costs
_NICE = NICE + 5  # of heavy jobs' threads: a third of what light ones get


@dataclass(slots=True)
class _Job:
    function: Callable[..., Any]
    arguments: tuple[Any, ...]
    memory: int
    heavy: bool
    phases: Phases
    context: Context


class Pool:
    """All methods belong to one event loop.

    Args:
        name: of the threads.
        threads: heavy jobs at once, and light ones.
        memory: bytes that heavy jobs may take together.
    """

    def __init__(self, name: str, threads: int, memory: int = 0) -> None:
        self._lanes: Lanes[_Job] = Lanes()
        self._threads = threads
        self._memory = memory
        self._running: dict[Waiting[_Job], float] = {}
        name = f"ptft-{name}"
        self._light = Threads(threads, name)
        self._heavy = Threads(threads, name, _NICE)

    async def run(
        self,
        lane: object,
        function: Callable[..., R],
        *arguments: Any,
        memory: int = 0,
        seconds: float = 0.0,
        phases: Phases = NOT_TIMED,
    ) -> R:
        """Call a function in a thread when it is this lane's turn.

        Args:
            lane: whose turn it takes: a request.
            memory: bytes that it is estimated to take; no more than the pool has.
            seconds: that it is estimated to take.
            phases: of the request: it is queued, and then decodes.
        """
        heavy = memory > LIGHT_BYTES or seconds > LIGHT_S
        future: asyncio.Future[R] = asyncio.get_running_loop().create_future()
        job = _Job(function, arguments, memory, heavy, phases, copy_context())
        if not self._lanes and self._allows()(job):  # nobody's turn but its own
            self._start(Waiting(job, future, seconds))
        else:
            self._lanes.push(lane, job, future, max(seconds, _LEAST_S))
            phases.enter("queue")
            self._dispatch()
        try:
            return await future
        finally:
            del future  # it holds what was raised, and its traceback this frame and the arguments

    @property
    def waiting(self) -> int:
        """Jobs that have not begun."""
        return len(self._lanes)

    @property
    def memory(self) -> tuple[int, int]:
        """Bytes that running heavy jobs are estimated to take, and the budget."""
        return sum(one.item.memory for one in self._running if one.item.heavy), self._memory

    def busy_for(self) -> float:
        """Seconds that the oldest running job has been running; 0 when idle."""
        started = list(self._running.values())
        return time.monotonic() - min(started) if started else 0.0

    def close(self) -> None:
        """Begin no more jobs."""
        for threads in (self._light, self._heavy):
            threads.close()

    def _dispatch(self) -> None:
        while self._lanes and (found := self._lanes.pop(self._allows())):
            self._start(found)

    def _allows(self) -> Callable[[_Job], bool]:
        """Which job may begin: a light one where a place is free, or the first heavy one if there
        is room for it."""
        heavy = [one.item for one in self._running if one.item.heavy]
        light_places = self._threads - (len(self._running) - len(heavy))
        places = self._threads - len(heavy)
        free = self._memory - sum(job.memory for job in heavy)
        blocked = False

        def allows(job: _Job) -> bool:
            nonlocal blocked
            if not job.heavy:
                return light_places > 0
            # once one has to wait so do all: smaller ones would pass it for ever
            blocked = blocked or places < 1 or job.memory > free
            return not blocked

        return allows

    def _start(self, waiting: Waiting[_Job]) -> None:
        job = waiting.item
        job.phases.leave("queue")
        job.phases.enter("decode")
        self._running[waiting] = time.monotonic()

        def told(found: object, error: BaseException | None) -> None:
            del self._running[waiting]
            job.phases.leave("decode")
            settle(waiting.future, found, error)
            self._dispatch()

        threads = self._heavy if job.heavy else self._light
        threads.call(told, job.context.run, job.function, *job.arguments)
