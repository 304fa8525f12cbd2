"""Threads that call functions in turn and tell an event loop what came of it.

They come after the event loop where there are fewer CPUs than there is to do (their niceness, which
on Linux is a thread's own): it takes a twentieth of what they do, and while it waits for a CPU all
wait that come and go, those too that are refused. Of others' programs it is those of the same
control group alone that come before them so, and a container has one of its own.

``concurrent.futures`` makes a condition, two futures and a dozen calls of each, which is a tenth of
what a request costs beside its model.
"""

import asyncio
import atexit
import os
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from queue import SimpleQueue
from typing import Any
from weakref import WeakSet

__all__ = ["NICE", "Threads", "settle"]

NICE = 10
"""Of threads that work: a tenth of what the event loop gets where there is not enough."""

Told = Callable[[Any, BaseException | None], None]
_Call = tuple[asyncio.AbstractEventLoop, Told, Callable[..., Any], tuple[Any, ...]]


class Threads:
    """Of one event loop; they begin with the first call.

    Args:
        count: of them.
        name: of each.
        nice: by how much each comes after the event loop.
    """

    def __init__(self, count: int, name: str, nice: int = NICE) -> None:
        self._calls: SimpleQueue[_Call | None] = SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._count, self._name, self._nice = count, name, nice
        self._closed = False

    def call(self, told: Told, function: Callable[..., Any], *arguments: Any) -> None:
        """Call a function in the first thread that is free.

        Args:
            told: called by the event loop that runs here, with what came back or was raised.

        Raises:
            RuntimeError: after ``close``.
        """
        if self._closed:
            raise RuntimeError(f"{self._name}: closed")
        if not self._threads:
            self._start()
        self._calls.put((asyncio.get_running_loop(), told, function, arguments))

    def close(self) -> None:
        """Let each end once it is free."""
        self._closed = True
        for _ in self._threads:
            self._calls.put(None)

    def join(self) -> None:
        """Close, and wait until all have ended."""
        self.close()
        for thread in self._threads:
            thread.join()

    def _start(self) -> None:
        for _ in range(self._count):
            # daemons, or Python would wait at its end for those that nobody has closed
            thread = threading.Thread(target=self._work, name=self._name, daemon=True)
            self._threads.append(thread)
            thread.start()
        _started.add(self)

    def _work(self) -> None:
        _come_after(self._nice)
        while (call := self._calls.get()) is not None:
            _run(*call)
            del call  # pixels are not held while it waits for the next


_started: WeakSet[Threads] = WeakSet()


@atexit.register
def _join_all() -> None:
    """What still runs inside the model would crash without the interpreter around it."""
    for threads in list(_started):
        threads.join()


def _run(
    loop: asyncio.AbstractEventLoop,
    told: Told,
    function: Callable[..., Any],
    arguments: tuple[Any, ...],
) -> None:
    found, error = None, None
    try:
        found = function(*arguments)
    except BaseException as raised:  # whatever it is, it is for whoever asked
        error = raised
    with suppress(RuntimeError):  # the loop has been closed: nobody waits
        loop.call_soon_threadsafe(told, found, error)
    error = None  # its traceback holds this frame, and that what was worked on


def _come_after(nice: int) -> None:
    """Of this thread alone; where a thread has no niceness of its own nothing changes."""
    if sys.platform == "linux":
        with suppress(OSError):
            own = threading.get_native_id()
            os.setpriority(os.PRIO_PROCESS, own, os.getpriority(os.PRIO_PROCESS, own) + nice)


def settle(future: asyncio.Future[Any], found: object, error: BaseException | None) -> None:
    """Tell who waits, if anybody still does."""
    if future.done():
        return
    if error is not None:
        future.set_exception(error)
    else:
        future.set_result(found)
