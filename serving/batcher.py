"""Work-conserving micro-batches: what queued while the model was busy runs next, together.

A batch never waits for company. When the model is idle an item runs at once and alone, so a
lone client sees the model's own latency; under load the queue fills while a batch runs, and
the batches grow by themselves, to so many items as take ``LONGEST_S`` on an idle machine: longer
ones gain next to nothing, and hold up whoever comes meanwhile; on a busy machine shorter ones would
only waste more of it. Each request has its lane (``serving.lanes``).
"""

import asyncio
import logging
import resource
import time
from collections.abc import Callable, Sequence
from contextvars import Context
from functools import partial

import numpy as np

from serving.lanes import Lanes, Waiting
from serving.phases import NOT_TIMED, Phases
from serving.threads import Threads, settle

__all__ = ["LONGEST_S", "Batcher", "Run"]

logger = logging.getLogger("bentoml.ptft")

LONGEST_S = 0.1
"""Seconds that a batch should take at most, at the best speed seen; of one item it may be more."""

_RECENT = 0.3  # weight of the last batch in the mean

Run = Callable[[Sequence[np.ndarray]], np.ndarray]
Observe = Callable[[int, float], None]
Item = tuple[np.ndarray, int, Phases]


class Batcher:
    """Runs single items through a function of batches, lane after lane.

    All methods belong to one event loop; ``run`` is called in a thread of its own, one batch
    at a time.

    Args:
        name: of what is batched, for thread names and logs.
        run: (n items) -> (n, D), row i being item i's.
        max_batch: most items in one call.
        observe: told the size and the seconds of every batch.
        threads: that share a batch's work, where CPUs do it: until there is traffic a speed is by
            what they have worked, since others may be at work beside it.

    Attributes:
        max_batch: as given.
        seconds_a_unit: of late; a batch of n items of at most u units has n * u of them.
        best_seconds_a_unit: the fewest since ``calibrate``; 0, and no bound on batches, before it.
        succeeded, failed: when a batch last did, monotonic; 0 where none has.
        failing_since: when the first of the batches failed since which none has succeeded, or None.
        longest: seconds of the longest batch.
    """

    def __init__(
        self,
        name: str,
        run: Run,
        *,
        max_batch: int,
        observe: Observe,
        threads: int | None = None,
    ) -> None:
        self.name = name
        self.seconds_a_unit = self.best_seconds_a_unit = 0.0
        self.succeeded = self.failed = 0.0
        self.failing_since: float | None = None
        self.longest = 0.0
        self._run = run
        self.max_batch = max_batch
        self._observe = observe
        self._threads = threads
        self._lanes: Lanes[Item] = Lanes()
        self._thread = Threads(1, f"ptft-{name}")
        self._worker: asyncio.Task[None] | None = None
        self._started: float | None = None  # of the batch that runs now, monotonic

    def submit(
        self,
        lane: object,
        items: Sequence[np.ndarray],
        units: Sequence[int] | None = None,
        phases: Phases = NOT_TIMED,
    ) -> list[asyncio.Future[np.ndarray]]:
        """Queue items; each future gives that item's row (D,), or raises what ``run`` raised.

        Items of one call that find the model idle run as one batch. A cancelled future takes
        its item out of the queue.

        Args:
            lane: whose turn they take: a request.
            units: what each costs, 1 by default: tokens.
            phases: of the request.
        """
        loop = asyncio.get_running_loop()
        futures: list[asyncio.Future[np.ndarray]] = [loop.create_future() for _ in items]
        for item, cost, future in zip(items, units or [1] * len(items), futures, strict=True):
            self._lanes.push(lane, (item, cost, phases), future, cost)
            phases.enter("queue")
        if self._worker is None and futures:
            # of no request's context, or what it logs of others' batches would have that one's id
            self._worker = loop.create_task(self._work(), context=Context())
        return futures

    @property
    def waiting(self) -> int:
        """Items that no batch has taken yet."""
        return len(self._lanes)

    def measure(self, item: np.ndarray, count: int) -> float:
        """Seconds that a batch takes that is run here and now, ahead of all traffic."""
        return self._measured([item] * count)[2]

    def calibrate(self, items: Sequence[np.ndarray], units: int) -> np.ndarray:
        """Measure a unit before there is any traffic: run a batch, here and now; its rows."""
        rows, elapsed, best = self._measured(items)
        self.seconds_a_unit, self.best_seconds_a_unit = elapsed / units, best / units
        self.longest = self.seconds_a_unit * units / len(items) * self.max_batch
        return rows

    def most(self, units: int) -> int:
        """Items of so many units each that a batch may have, by the best speed seen."""
        best = self.best_seconds_a_unit
        return min(self.max_batch, max(1, int(LONGEST_S / best / units) if best else 1))

    def busy_for(self) -> float:
        """Seconds that the present batch has been running; 0 when idle."""
        started = self._started
        return 0.0 if started is None else time.monotonic() - started

    def close(self) -> None:
        """Begin no more batches."""
        self._thread.close()

    def _measured(self, items: Sequence[np.ndarray]) -> tuple[np.ndarray, float, float]:
        """Rows, seconds on the clock, and without what others did meanwhile."""
        started, spent = time.monotonic(), _worked()
        rows = self._run(items)
        elapsed, spent = time.monotonic() - started, _worked() - spent
        return rows, elapsed, min(elapsed, spent / self._threads) if self._threads else elapsed

    async def _work(self) -> None:
        try:
            while batch := self._take():
                await self._run_batch(batch)
        finally:
            self._worker = None

    def _take(self) -> list[Waiting[Item]]:
        batch: list[Waiting[Item]] = []
        best = self.best_seconds_a_unit
        most = LONGEST_S / best if best else float("inf")
        widest = 0

        def allows(item: Item) -> bool:
            return not batch or (len(batch) + 1) * max(widest, item[1]) <= most

        while len(batch) < self.max_batch and (found := self._lanes.pop(allows)) is not None:
            batch.append(found)
            found.item[2].leave("queue")
            widest = max(widest, found.item[1])
        return batch

    async def _run_batch(self, batch: list[Waiting[Item]]) -> None:
        ran: asyncio.Future[np.ndarray] = asyncio.get_running_loop().create_future()
        self._started = time.monotonic()
        for one in batch:
            one.item[2].enter("engine")
        try:
            items = [one.item[0] for one in batch]
            self._thread.call(partial(settle, ran), self._run, items)
            rows = await ran
        except Exception as error:
            self.failed = time.monotonic()
            self.failing_since = self.failing_since or self.failed
            logger.exception("%s: a batch of %d failed", self.name, len(batch))
            if len(batch) == 1:
                if not batch[0].future.done():
                    batch[0].future.set_exception(error)
                return
            for one in batch:  # one of them fails, alone
                await self._run_batch([one])
            return
        finally:
            elapsed = self.busy_for()
            self._started = None
            for one in batch:
                one.item[2].leave("engine")
        self._succeed(len(batch) * max(one.item[1] for one in batch), elapsed)
        for row, one in zip(rows, batch, strict=True):
            if not one.future.done():
                one.future.set_result(row)
        self._observe(len(batch), elapsed)

    def _succeed(self, units: int, elapsed: float) -> None:
        self.succeeded, self.failing_since = time.monotonic(), None
        self.longest = max(self.longest, elapsed)
        recent = elapsed / units
        self.seconds_a_unit += (recent - self.seconds_a_unit) * (
            _RECENT if self.seconds_a_unit else 1.0
        )
        self.best_seconds_a_unit = min(self.best_seconds_a_unit, recent)


def _worked() -> float:
    """CPU seconds of this process. Where they are limited, as while a model runs for the first
    time, the clock of the process goes by ticks of 4 ms, which is the whole of a small batch."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime
