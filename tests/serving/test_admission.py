"""Budgets: what is taken is given back, small requests keep a share, nobody waits while holding."""

import asyncio

import pytest

from serving.admission import Admission, Budget, Cost
from serving.refusal import Refusal


def admission(items: int = 8, memory: int = 1600, work: float = 16.0) -> Admission:
    return Admission(items, memory, work)


def taken(shared: Admission) -> tuple[float, float, float]:
    return shared.items.taken, shared.memory.taken, shared.work.taken


def test_a_ticket_gives_back_all_that_it_was_charged() -> None:
    shared = admission()
    ticket = shared.open()
    ticket.charge(Cost(items=2, memory=100))
    ticket.charge(Cost(items=1, work=1.5))
    assert taken(shared) == (3, 100, 1.5)
    ticket.close()
    ticket.close()
    assert taken(shared) == (0, 0, 0)


@pytest.mark.parametrize(
    ("cost", "setting"),
    [
        (Cost(items=9), "PTFT_MAX_QUEUE"),
        (Cost(memory=1201), "PTFT_MAX_MEMORY_BYTES"),
        (Cost(work=12.1), "PTFT_MAX_WORK_S"),
    ],
)
def test_what_no_request_may_have_is_refused_for_good(cost: Cost, setting: str) -> None:
    shared = admission()
    with pytest.raises(Refusal) as caught:
        shared.open().charge(cost)
    assert (caught.value.status, caught.value.kind) == (413, "too_costly")
    assert setting in str(caught.value)
    assert taken(shared) == (0, 0, 0)


def test_a_refused_charge_takes_nothing_and_says_when_to_ask_again() -> None:
    shared = admission()
    first, second = shared.open(), shared.open()
    first.charge(Cost(items=1, work=11.0))
    with pytest.raises(Refusal) as caught:
        second.charge(Cost(items=1, memory=100, work=2.0))
    assert (caught.value.status, caught.value.kind) == (429, "queue_full")
    assert caught.value.retry_after == 11
    assert taken(shared) == (1, 0, 11.0)


def test_the_last_quarter_is_for_small_requests() -> None:
    shared = admission(work=16.0)
    large, another, small = shared.open(), shared.open(), shared.open()
    large.charge(Cost(work=12.0))
    with pytest.raises(Refusal):
        another.charge(Cost(work=1.1))
    for _ in range(16):
        shared.open().charge(Cost(work=0.25))
    with pytest.raises(Refusal):
        small.charge(Cost(work=0.25))
    large.close()
    small.charge(Cost(work=0.25))


def test_what_grows_in_small_steps_is_large_all_the_same() -> None:
    shared = admission(work=16.0)
    greedy = shared.open()
    shared.open().charge(Cost(work=1.0))
    with pytest.raises(Refusal):
        for _ in range(100):
            greedy.charge(Cost(work=0.5))
    assert shared.work.taken <= 12


def test_one_request_may_have_every_item_while_it_is_alone() -> None:
    shared = admission(items=8)
    ticket = shared.open()
    ticket.charge(Cost(items=8))
    with pytest.raises(Refusal):
        shared.open().charge(Cost(items=1))


def test_memory_is_waited_for_in_order_of_arrival() -> None:
    async def play() -> None:
        budget = Budget(1600)
        assert await budget.wait(1000)
        order: list[str] = []

        async def wait(name: str, amount: float) -> None:
            assert await budget.wait(amount)
            order.append(name)

        waiting = [asyncio.create_task(wait("large", 900)), asyncio.create_task(wait("next", 200))]
        await asyncio.sleep(0)
        assert order == [] and budget.taken == 1000  # who waits holds nothing
        budget.give(1000)
        await asyncio.gather(*waiting)
        assert order == ["large", "next"] and budget.taken == 1100

    asyncio.run(play())


def test_who_stops_waiting_lets_the_next_one_in_and_holds_nothing() -> None:
    async def play() -> None:
        budget = Budget(1600)
        assert await budget.wait(1000)
        first, second = (asyncio.create_task(budget.wait(amount)) for amount in (1100, 150))
        await asyncio.sleep(0)
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
        budget.give(10)
        assert await second
        assert budget.taken == 1140

    asyncio.run(play())


def test_too_many_that_wait_are_refused_at_once() -> None:
    async def play() -> None:
        shared = admission(memory=1600)
        holding = shared.open()
        await holding.wait_for_memory(1200)
        waiting = [asyncio.create_task(shared.open().wait_for_memory(500)) for _ in range(64)]
        await asyncio.sleep(0)
        with pytest.raises(Refusal) as caught:
            await shared.open().wait_for_memory(500)
        assert (caught.value.status, caught.value.kind) == (429, "memory_full")
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        holding.close()
        assert shared.memory.taken == 0

    asyncio.run(play())
