"""Threads behind fair queues: turns, places for light jobs, the budget of memory, cancellation."""

import asyncio
import os
import sys
import threading
from typing import NamedTuple

import pytest

from serving.lanes import Lanes
from serving.logs import CURRENT_ID
from serving.pool import LIGHT_BYTES, LIGHT_S, Pool


class Jobs:
    """Jobs that note when they begin, and end when they are let."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self._gates: dict[str, threading.Event] = {}
        self._lock = threading.Lock()

    def __call__(self, name: str) -> str:
        with self._lock:
            self.begun.append(name)
            gate = self._gates.setdefault(name, threading.Event())
        assert gate.wait(10)
        return name

    def release(self, *names: str) -> None:
        with self._lock:
            for name in names:
                self._gates.setdefault(name, threading.Event()).set()

    async def until(self, count: int) -> list[str]:
        for _ in range(2000):
            if len(self.begun) >= count:
                return self.begun
            await asyncio.sleep(0.005)
        raise AssertionError(f"only {self.begun} began")


def test_lanes_take_turns_and_pass_over_what_was_given_up() -> None:
    async def play() -> None:
        loop = asyncio.get_running_loop()
        lanes: Lanes[str] = Lanes()
        futures = {name: loop.create_future() for name in ("a1", "a2", "a3", "b1", "c1", "c2")}
        for name, future in futures.items():
            lanes.push(name[0], name, future)
        futures["a2"].cancel()
        assert len(lanes) == 5
        order = [one.item for one in iter(lanes.pop, None)]
        assert order == ["a1", "b1", "c1", "a3", "c2"]

    asyncio.run(play())


def drawn(costs: dict[str, list[float]]) -> list[str]:
    """In which order items of lanes are taken that all wait."""

    async def play() -> list[str]:
        loop = asyncio.get_running_loop()
        lanes: Lanes[str] = Lanes()
        for name, each in costs.items():
            for number, cost in enumerate(each):
                lanes.push(name, f"{name}{number}", loop.create_future(), cost)
        return [one.item for one in iter(lanes.pop, None)]

    return asyncio.run(play())


def test_turns_are_weighed_by_what_they_cost() -> None:
    order = drawn({"dear": [1.0] * 3, "cheap": [0.125] * 20, "one": [0.5]})
    # for a turn of the dear lane the cheap one has eight; the one item comes in between
    assert order.index("one0") == 4
    assert order.index("dear0") == 7 + 1
    assert order.index("dear1") == 15 + 1 + 1
    assert order[-1] == "dear2"


class Lane(NamedTuple):
    """A request by a caller."""

    caller: str
    number: int


def test_a_caller_with_many_requests_has_no_more_turns_than_one_with_one() -> None:
    async def play() -> None:
        loop = asyncio.get_running_loop()
        lanes: Lanes[str] = Lanes()
        for number in range(40):
            lanes.push(Lane("flood", number), "flood", loop.create_future())
        assert [one.item for one in (lanes.pop(), lanes.pop()) if one] == ["flood"] * 2
        for number in range(5):
            lanes.push(Lane("other", 0), f"other{number}", loop.create_future())
            lanes.push(Lane("third", number), f"third{number}", loop.create_future(), 2.0)
        order = [one.item for one in iter(lanes.pop, None)]
        for number in range(5):  # a third of the time each: two cheap ones to one that costs two
            assert order.index(f"other{number}") <= 3 * number + 2
            assert order.index(f"third{number}") <= 5 * number + 5
        assert order.count("flood") == 38

    asyncio.run(play())


def test_what_a_caller_may_not_have_yet_is_passed_over() -> None:
    async def play() -> None:
        loop = asyncio.get_running_loop()
        lanes: Lanes[str] = Lanes()
        for caller in ("one", "two"):
            lanes.push(Lane(caller, 0), caller, loop.create_future())
        found = lanes.pop(lambda item: item == "two")
        assert found is not None and found.item == "two"
        assert lanes.pop(lambda item: item == "two") is None
        assert len(lanes) == 1

    asyncio.run(play())


def test_a_job_logs_with_the_id_of_its_own_request() -> None:
    """Though it was another's end that let it begin."""

    async def ask(pool: Pool, jobs: Jobs, name: str) -> tuple[str, str]:
        CURRENT_ID.set(name)
        await pool.run(name, jobs, name)
        return name, await pool.run(name, CURRENT_ID.get)

    async def play() -> None:
        jobs, pool = Jobs(), Pool("test", 1)
        asking = [asyncio.ensure_future(ask(pool, jobs, name)) for name in ("a", "b", "c")]
        await jobs.until(1)
        jobs.release("a", "b", "c")
        assert all(name == logged for name, logged in await asyncio.gather(*asking))
        pool.close()

    asyncio.run(play())


def test_who_comes_later_is_not_behind_those_that_have_been_waiting_for_long() -> None:
    async def play() -> None:
        loop = asyncio.get_running_loop()
        lanes: Lanes[str] = Lanes()
        for number in range(40):
            lanes.push("many", f"m{number}", loop.create_future(), 2.0)
        taken = [lanes.pop() for _ in range(10)]
        assert all(taken)
        lanes.push("late", "l0", loop.create_future(), 1.0)
        first = lanes.pop()
        assert first is not None and first.item == "l0"
        lanes.push("later", "k0", loop.create_future(), 30.0)  # and it is passed for a while only
        rest = [one.item for one in iter(lanes.pop, None)]
        assert rest.index("k0") == 15

    asyncio.run(play())


def test_a_request_with_many_jobs_does_not_hold_up_one_with_few() -> None:
    async def play() -> None:
        jobs, pool = Jobs(), Pool("test", 1)
        many = [asyncio.ensure_future(pool.run("many", jobs, f"m{n}")) for n in range(6)]
        await jobs.until(1)
        few = asyncio.ensure_future(pool.run("few", jobs, "f"))
        await asyncio.sleep(0)
        jobs.release("m0", "m1", "f")
        assert await few == "f"
        assert jobs.begun.index("f") <= 2
        jobs.release(*(f"m{n}" for n in range(6)))
        await asyncio.gather(*many)
        pool.close()

    asyncio.run(play())


def test_a_light_job_has_a_place_that_heavy_ones_never_take() -> None:
    async def play() -> None:
        jobs, pool = Jobs(), Pool("test", 1, memory=0)
        heavy = [
            asyncio.ensure_future(pool.run(n, jobs, f"h{n}", seconds=2 * LIGHT_S)) for n in range(3)
        ]
        await jobs.until(1)
        light = asyncio.ensure_future(pool.run("light", jobs, "l"))
        assert await jobs.until(2) == ["h0", "l"]
        jobs.release("l", "h0", "h1", "h2")
        await asyncio.gather(light, *heavy)
        pool.close()

    asyncio.run(play())


@pytest.mark.skipif(sys.platform != "linux", reason="threads have no niceness of their own")
def test_threads_of_heavy_jobs_come_last() -> None:
    def niceness() -> int:
        return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())

    async def play() -> None:
        pool = Pool("test", 1, memory=1)
        light = await pool.run("a", niceness)
        heavy = await pool.run("a", niceness, seconds=2 * LIGHT_S)
        assert niceness() < light < heavy
        pool.close()

    asyncio.run(play())


def test_heavy_jobs_share_a_budget_and_none_is_passed_for_ever() -> None:
    async def play() -> None:
        unit = 2 * LIGHT_BYTES
        jobs, pool = Jobs(), Pool("test", 4, memory=3 * unit)

        def run(name: str, units: int) -> asyncio.Future[str]:
            return asyncio.ensure_future(pool.run(name, jobs, name, memory=units * unit))

        first, large, small = run("first", 2), run("large", 2), run("small", 1)
        await jobs.until(1)
        await asyncio.sleep(0.05)
        assert jobs.begun == ["first"]  # "small" would fit, and would be before "large" for ever
        jobs.release("first")
        await jobs.until(3)
        jobs.release("large", "small")
        await asyncio.gather(first, large, small)
        pool.close()

    asyncio.run(play())


def test_what_was_given_up_does_not_begin() -> None:
    async def play() -> None:
        jobs, pool = Jobs(), Pool("test", 2)
        running = [asyncio.ensure_future(pool.run("a", jobs, f"r{n}")) for n in range(2)]
        await jobs.until(2)
        given_up = [asyncio.ensure_future(pool.run("b", jobs, f"g{n}")) for n in range(50)]
        kept = asyncio.ensure_future(pool.run("c", jobs, "kept"))
        await asyncio.sleep(0)
        assert pool.waiting == 51
        for one in given_up:
            one.cancel()
        await asyncio.sleep(0)
        assert pool.waiting == 1
        jobs.release("r0", "r1", "kept")
        assert await kept == "kept"
        await asyncio.gather(*running)
        assert sorted(jobs.begun) == ["kept", "r0", "r1"]
        pool.close()

    asyncio.run(play())


def test_what_a_job_raises_is_raised_to_who_waits() -> None:
    async def play() -> None:
        pool = Pool("test", 1)
        try:
            await pool.run("a", int, "no number")
        except ValueError:
            pass
        else:
            raise AssertionError("it was lost")
        assert await pool.run("a", int, "3") == 3
        pool.close()

    asyncio.run(play())
