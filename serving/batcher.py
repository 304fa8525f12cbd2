"""Work-conserving micro-batches: what queued while the model was busy runs next, together.

A batch never waits for company. When the model is idle an item runs at once and alone, so a
lone client sees the model's own latency; under load the queue fills while a batch runs, and
the batches grow by themselves. Nothing is tuned and nothing is learnt from earlier traffic.
"""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

__all__ = ["Batcher"]

logger = logging.getLogger("bentoml.ptft")

Run = Callable[[Sequence[np.ndarray]], np.ndarray]
Observe = Callable[[int, float], None]


class Batcher:
    """Runs single items through a function of batches, in order of arrival.

    All methods belong to one event loop; ``run`` is called in a thread of its own, one batch
    at a time.

    Args:
        name: of what is batched, for thread names and logs.
        run: (n items) -> (n, D), row i being item i's.
        max_batch: most items in one call.
        observe: told the size and the seconds of every batch.
    """

    def __init__(self, name: str, run: Run, *, max_batch: int, observe: Observe) -> None:
        self.name = name
        self._run = run
        self._max_batch = max_batch
        self._observe = observe
        self._waiting: deque[tuple[np.ndarray, asyncio.Future[np.ndarray]]] = deque()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=f"ptft-{name}")
        self._worker: asyncio.Task[None] | None = None
        self._started: float | None = None  # of the batch that runs now, monotonic

    def submit(self, items: Sequence[np.ndarray]) -> list[asyncio.Future[np.ndarray]]:
        """Queue items; each future gives that item's row (D,), or raises what ``run`` raised.

        Items of one call that find the model idle run as one batch. A cancelled future takes
        its item out of the queue.
        """
        loop = asyncio.get_running_loop()
        futures = [loop.create_future() for _ in items]
        self._waiting.extend(zip(items, futures, strict=True))
        if self._worker is None and futures:
            self._worker = loop.create_task(self._work())
        return futures

    @property
    def waiting(self) -> int:
        """Items that no batch has taken yet."""
        return len(self._waiting)

    def busy_for(self) -> float:
        """Seconds that the present batch has been running; 0 when idle."""
        return 0.0 if self._started is None else time.monotonic() - self._started

    def close(self) -> None:
        """Let the present batch end; nothing may be submitted any more."""
        self._thread.shutdown(wait=True, cancel_futures=True)

    async def _work(self) -> None:
        try:
            while batch := self._take():
                await self._run_batch(*batch)
        finally:
            self._worker = None

    def _take(self) -> tuple[list[np.ndarray], list[asyncio.Future[np.ndarray]]] | None:
        items: list[np.ndarray] = []
        futures: list[asyncio.Future[np.ndarray]] = []
        while self._waiting and len(items) < self._max_batch:
            item, future = self._waiting.popleft()
            if not future.done():  # else its request was given up: past its deadline
                items.append(item)
                futures.append(future)
        return (items, futures) if items else None

    async def _run_batch(
        self, items: list[np.ndarray], futures: list[asyncio.Future[np.ndarray]]
    ) -> None:
        loop = asyncio.get_running_loop()
        self._started = time.monotonic()
        try:
            rows = await loop.run_in_executor(self._thread, self._run, items)
        except Exception as error:
            logger.exception("%s: a batch of %d failed", self.name, len(items))
            if len(items) == 1:
                if not futures[0].done():
                    futures[0].set_exception(error)
                return
            for item, future in zip(items, futures, strict=True):  # one of them fails, alone
                await self._run_batch([item], [future])
            return
        finally:
            elapsed = self.busy_for()
            self._started = None
        for row, future in zip(rows, futures, strict=True):
            if not future.done():
                future.set_result(row)
        self._observe(len(items), elapsed)
