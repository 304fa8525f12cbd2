"""Micro-batches: nothing waits when idle, what queues while busy runs together, lane by lane."""

import asyncio
import threading
import time
from collections.abc import Sequence

import numpy as np
import pytest

from serving.batcher import LONGEST_S, Batcher
from serving.warmup import best_size


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
        first = batches.submit("a request", [item(0)])
        await until(lambda: tower.sizes == [1])  # idle: at once, alone
        rest = [future for n in range(1, 7) for future in batches.submit("a request", [item(n)])]
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
            *batches.submit("a request", [item(1), item(-1), item(2)]), return_exceptions=True
        )
        assert isinstance(results[1], ValueError)
        assert [results[0][0], results[2][0]] == [2, 4]  # type: ignore[index]
        (after,) = batches.submit("a request", [item(3)])
        assert (await after)[0] == 6
        batches.close()

    asyncio.run(play())


def test_what_was_given_up_is_not_run() -> None:
    async def play() -> None:
        tower = Tower()
        batches = batcher(tower)
        (first,) = batches.submit("a request", [item(0)])
        await until(lambda: tower.sizes == [1])
        given_up, kept = batches.submit("a request", [item(1), item(2)])
        given_up.cancel()
        tower.release.release()
        tower.release.release()
        assert (await kept)[0] == 4
        await first
        assert tower.sizes == [1, 1]
        batches.close()

    asyncio.run(play())


def test_a_request_with_many_items_does_not_hold_up_one_with_few() -> None:
    async def play() -> None:
        tower = Tower()
        batches = batcher(tower, max_batch=2)
        many = batches.submit("many", [item(n) for n in range(8)])
        await until(lambda: tower.sizes == [2])
        (one,) = batches.submit("one", [item(100)])
        tower.release.release()
        tower.release.release()
        assert (await one)[0] == 200  # in the very next batch
        assert not many[3].done() and not many[7].done()
        for _ in range(4):
            tower.release.release()
        assert [row[0] for row in await asyncio.gather(*many)] == [2 * n for n in range(8)]
        batches.close()

    asyncio.run(play())


def test_a_batch_ends_where_it_would_take_too_long() -> None:
    async def play() -> None:
        tower = Tower()
        batches = batcher(tower, max_batch=8)
        batches.best_seconds_a_unit = LONGEST_S / 10
        for _ in range(9):
            tower.release.release()
        first = batches.submit("texts", [item(n) for n in range(3)], [3, 3, 5])
        await asyncio.gather(*first)
        assert tower.sizes[0] == 3 - 1  # 3 texts of 5 tokens are more than 10, 2 of 3 are not
        batches.close()

    asyncio.run(play())


def test_what_others_work_beside_it_does_not_shorten_batches() -> None:
    def held_up(items: Sequence[np.ndarray]) -> np.ndarray:
        time.sleep(2 * LONGEST_S)  # as if another had the CPU
        return np.stack(items)

    for threads, longer in ((None, False), (1, True)):
        batches = Batcher(
            "test", held_up, max_batch=8, observe=lambda items, seconds: None, threads=threads
        )
        batches.calibrate([item(0)], 1)
        assert batches.seconds_a_unit >= 2 * LONGEST_S
        assert (batches.most(1) > 1) == longer
        assert (batches.measure(item(0), 2) < LONGEST_S) == longer
        batches.close()


def test_a_tower_that_only_fails_is_known_to() -> None:
    async def play() -> None:
        tower = Tower()
        batches = batcher(tower)
        for value, failing in ((-1, True), (-1, True), (1, False)):
            tower.release.release()
            await asyncio.gather(
                *batches.submit("a request", [item(value)]), return_exceptions=True
            )
            assert (batches.failing_since is not None) is failing
        assert batches.succeeded > batches.failed
        batches.close()

    asyncio.run(play())


@pytest.mark.parametrize(
    ("each", "longest", "wanted"),
    [
        ({1: 1.0}, 0.0, 1),  # one item takes as long as it takes
        ({1: 1.0, 2: 0.96, 4: 0.96}, 99.0, 1),  # 4 % is too little to hold up who comes
        ({1: 1.0, 2: 1.1, 4: 0.5, 8: 0.49, 16: 0.48}, 99.0, 4),  # one may be an accident
        ({1: 1.0, 2: 0.5, 4: 0.4, 8: 0.39, 16: 0.39}, 99.0, 4),
        ({1: 1.0, 2: 0.5, 4: 0.2, 8: 0.1, 16: 0.05}, 99.0, 16),
        ({1: 1.0, 2: 0.5, 4: 0.4}, 2.0, 4),
        ({1: 1.0, 2: 0.6}, 2.0, 2),
    ],
)
def test_the_size_of_batches_is_measured(
    each: dict[int, float], longest: float, wanted: int
) -> None:
    assert best_size(lambda count: count * each[count], 16, longest) == wanted
