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
        (Cost(best_work=16.1), "PTFT_MAX_WORK_S"),
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


def test_memory_is_waited_for_in_turns_that_the_amounts_weigh() -> None:
    async def play() -> None:
        budget = Budget(1600)
        assert await budget.wait("first", 1000)
        order: list[str] = []

        async def wait(name: str, amount: float) -> None:
            assert await budget.wait(name, amount)
            order.append(name)

        waiting = [
            asyncio.create_task(wait(name, amount))
            for name, amount in (("large", 900), ("larger", 1000), ("small", 100), ("less", 300))
        ]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert order == ["small"] and budget.taken == 1100  # who waits holds nothing
        budget.give(1000)
        await asyncio.sleep(0)
        assert order == ["small", "less"] and budget.taken == 400  # 900 more are too many
        budget.give(400)
        await asyncio.sleep(0)
        assert order[2:] == ["large"]  # and "larger" is not passed for ever
        late = asyncio.create_task(wait("late", 200))
        await asyncio.sleep(0)
        budget.give(900)
        await asyncio.gather(*waiting, late)
        assert order[3:] == ["larger", "late"]

    asyncio.run(play())


def test_a_large_one_that_waits_keeps_small_ones_from_no_more_than_its_own_part() -> None:
    async def play() -> None:
        budget = Budget(1600)
        assert await budget.wait("holder", 1100)
        large = asyncio.create_task(budget.wait("large", 150))
        await asyncio.sleep(0)
        small = [asyncio.create_task(budget.wait(n, 100)) for n in range(12)]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert budget.taken == 1500  # a quarter is for small ones: four of 100
        assert not large.done()
        budget.give(1100)
        assert await large and await asyncio.gather(*small)
        assert budget.taken == 150 + 1200

    asyncio.run(play())


def test_who_stops_waiting_lets_the_next_one_in_and_holds_nothing() -> None:
    async def play() -> None:
        budget = Budget(1600)
        assert await budget.wait("holder", 1000)
        first, second = (asyncio.create_task(budget.wait(n, n)) for n in (1100, 1150))
        await asyncio.sleep(0)
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
        budget.give(1000)
        assert await second
        third = asyncio.create_task(budget.wait("third", 900))
        await asyncio.sleep(0)
        budget.give(1150)  # the third is given its share, and is given up before it knows
        third.cancel()
        await asyncio.gather(third, return_exceptions=True)
        assert budget.taken == 0

    asyncio.run(play())


def test_the_dearest_makes_room_where_too_many_wait() -> None:
    async def play() -> None:
        shared = admission(memory=1600)
        await shared.open().wait_for_memory(1200)
        waiting = [asyncio.create_task(shared.open().wait_for_memory(500)) for _ in range(63)]
        dear = asyncio.create_task(shared.open().wait_for_memory(900))
        await asyncio.sleep(0)
        cheap = asyncio.create_task(shared.open().wait_for_memory(50))
        await asyncio.sleep(0)
        with pytest.raises(Refusal) as caught:
            await dear
        assert (caught.value.status, caught.value.kind) == (429, "memory_full")
        await cheap
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)

    asyncio.run(play())


def test_work_that_takes_long_because_others_are_busy_is_not_refused_for_good() -> None:
    shared = admission(work=16.0)
    slow = Cost(work=40.0, best_work=10.0)
    first, second = shared.open(), shared.open()
    first.charge(slow)  # alone
    with pytest.raises(Refusal) as caught:
        second.charge(slow)
    assert caught.value.status == 429
    first.close()
    second.charge(slow)
    second.close()
    assert taken(shared) == (0, 0, 0)


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
