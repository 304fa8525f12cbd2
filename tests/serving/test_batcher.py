"""Micro-batches: nothing waits when idle, what queues while busy runs together, order holds."""

import asyncio
import threading
from collections.abc import Sequence

import numpy as np
import pytest

from serving.admission import Admission
from serving.batcher import Batcher
from serving.refusal import Refusal


class Tower:
    """Doubles its items; holds every batch until it is released."""

    def __init__(self) -> None:
        self.sizes: list[int] = []
        self.release = threading.Semaphore(0)

    def __call__(self, items: Sequence[np.ndarray]) -> np.ndarray:
        self.sizes.append(len(items))
        assert self.release.acquire(timeout=10)
        if any(item[0] < 0 for item in items):
            raise ValueError("negative")
        return np.stack(items) * 2


def batcher(tower: Tower, max_batch: int = 4) -> Batcher:
    return Batcher("test", tower, max_batch=max_batch, observe=lambda items, seconds: None)


def item(value: float) -> np.ndarray:
    return np.full(3, value, np.float32)


async def until(condition: object) -> None:
    for _ in range(1000):
        if condition():  # type: ignore[operator]
            return
        await asyncio.sleep(0.005)
    raise AssertionError("it did not come about")


def test_what_queues_while_busy_runs_together() -> None:
    async def play() -> None:
        tower = Tower()
        batches = batcher(tower)
        first = batches.submit([item(0)])
        await until(lambda: tower.sizes == [1])  # idle: at once, alone
        rest = [future for n in range(1, 7) for future in batches.submit([item(n)])]
        assert batches.waiting == 6
        for _ in range(3):
            tower.release.release()
        rows = await asyncio.gather(*first, *rest)
        assert [row[0] for row in rows] == [0, 2, 4, 6, 8, 10, 12]
        assert tower.sizes == [1, 4, 2]
        batches.close()

    asyncio.run(play())


def test_one_that_fails_fails_alone() -> None:
    async def play() -> None:
        tower = Tower()
        batches = batcher(tower)
        for _ in range(9):
            tower.release.release()
        results = await asyncio.gather(
            *batches.submit([item(1), item(-1), item(2)]), return_exceptions=True
        )
        assert isinstance(results[1], ValueError)
        assert [results[0][0], results[2][0]] == [2, 4]  # type: ignore[index]
        (after,) = batches.submit([item(3)])
        assert (await after)[0] == 6
        batches.close()

    asyncio.run(play())


def test_what_was_given_up_is_not_run() -> None:
    async def play() -> None:
        tower = Tower()
        batches = batcher(tower)
        (first,) = batches.submit([item(0)])
        await until(lambda: tower.sizes == [1])
        given_up, kept = batches.submit([item(1), item(2)])
        given_up.cancel()
        tower.release.release()
        tower.release.release()
        assert (await kept)[0] == 4
        await first
        assert tower.sizes == [1, 1]
        batches.close()

    asyncio.run(play())


def test_admission_counts_and_lets_go() -> None:
    counts: list[int] = []
    admission = Admission(4, counts.append)
    admission.observe(2, 100.0)  # 5 s an item, by the first step of the mean
    with admission.enter() as slots:
        slots.hold(3)
        slots.hold(2)
        assert slots.held == 3
        with admission.enter(), pytest.raises(Refusal) as caught, admission.enter():
            raise AssertionError("a fifth was let in")
    assert (caught.value.status, caught.value.kind) == (429, "queue_full")
    assert caught.value.retry_after == 20
    assert counts == [1, 3, 4, 3, 0]
