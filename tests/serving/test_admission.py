"""Budgets: what is taken is given back, small requests keep a share, nobody waits while holding."""

import asyncio

import pytest

from serving.admission import Admission, Cost, Ticket
from serving.budget import Budget
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


def test_one_that_has_more_than_all_leaves_small_requests_their_quarter() -> None:
    """A request whose work is estimated to be more than all, since others are busy now."""
    shared = admission(work=16.0)
    large = shared.open()
    large.charge(Cost(work=40.0, best_work=10.0))
    tickets = [shared.open() for _ in range(5)]
    for small in tickets[:4]:
        small.charge(Cost(work=1.0))
    with pytest.raises(Refusal):
        tickets[4].charge(Cost(work=1.0))
    for ticket in (large, *tickets):
        ticket.close()
    assert taken(shared) == (0, 0, 0)
    keyed = of(shared, "one")
    keyed.charge(Cost(work=40.0, best_work=10.0))
    with pytest.raises(Refusal):
        of(shared, "one").charge(Cost(work=0.5))  # it is this key that has it all
    of(shared, "other").charge(Cost(work=1.0))


def test_who_waits_with_something_in_its_hand_gives_all_back() -> None:
    async def play() -> None:
        shared = admission(memory=1600)
        ticket = shared.open()
        ticket.charge(Cost(memory=90))
        await ticket.wait_for_memory(90)  # small, and then no longer
        small = [shared.open() for _ in range(4)]
        for one in small:
            one.charge(Cost(memory=100))
        ticket.close()
        for one in small[:3]:
            one.close()
        large = shared.open()
        large.charge(Cost(memory=1100))
        shared.open().charge(Cost(memory=100))
        assert shared.memory.taken == 1300

    asyncio.run(play())


def test_what_grows_in_small_steps_is_large_all_the_same() -> None:
    shared = admission(work=16.0)
    greedy = shared.open()
    shared.open().charge(Cost(work=1.0))
    with pytest.raises(Refusal):
        for _ in range(100):
            greedy.charge(Cost(work=0.5))
    assert shared.work.taken <= 12


def of(shared: Admission, caller: str) -> Ticket:
    ticket = shared.open()
    ticket.caller = caller
    return ticket


def admitted(shared: Admission, caller: str, most: int, items: int = 1) -> int:
    """How many requests are let in until one is refused."""
    for number in range(most):
        try:
            of(shared, caller).charge(Cost(items=items))
        except Refusal as refusal:
            assert (refusal.status, refusal.kind) == (429, "queue_full")
            return number
    return most


def test_floods_leave_room_to_other_callers() -> None:
    shared = admission(items=240)
    assert admitted(shared, "flood", 1000) == 120  # half
    assert admitted(shared, "second", 1000) == 60  # half of what is left
    assert admitted(shared, "third", 1000) == 30
    large = admission(items=256)
    assert admitted(large, "flood", 1000) == 128
    assert admitted(large, "other", 1000, items=64) == 1  # as many as a request may have
    alone = admission(items=240)
    of(alone, "one").charge(Cost(items=240))


def test_a_caller_gives_back_its_share() -> None:
    shared = admission(items=240)
    tickets = [of(shared, "one") for _ in range(120)]
    for ticket in tickets:
        ticket.charge(Cost(items=1))
    assert admitted(shared, "one", 1) == 0
    for ticket in tickets:
        ticket.close()
    assert taken(shared) == (0, 0, 0)
    assert admitted(shared, "one", 1000) == 120


def test_who_waits_is_not_behind_another_caller_that_has_its_share() -> None:
    async def play() -> None:
        shared = admission(memory=1600)
        holding = of(shared, "flood")
        await holding.wait_for_memory(850)
        more = [asyncio.create_task(of(shared, "flood").wait_for_memory(60)) for _ in range(64)]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert not any(task.done() for task in more)
        await of(shared, "other").wait_for_memory(300)  # room is there, and a place to wait is
        await asyncio.sleep(0)
        other = asyncio.create_task(of(shared, "other").wait_for_memory(500))
        await asyncio.sleep(0)
        refused = [task for task in more if task.done()]
        assert len(refused) == 1 and not other.done()
        for task in refused:
            assert isinstance(task.exception(), Refusal)
        for task in (*more, other):
            task.cancel()
        await asyncio.gather(*more, other, return_exceptions=True)
        holding.close()

    asyncio.run(play())


def test_lists_wait_for_memory_and_are_held_to_work_of_their_own() -> None:
    async def play() -> None:
        shared = admission(items=8, memory=1600, work=1.0)
        shared.list_work.limit = shared.list_work.most = 100.0
        first, second, third = shared.open(), shared.open(), shared.open()
        await first.enter_list(Cost(memory=390, work=40.0, best_work=40.0))
        waiting = asyncio.create_task(second.enter_list(Cost(memory=390, work=30.0)))
        await asyncio.sleep(0)
        assert not waiting.done()
        with pytest.raises(Refusal) as caught:
            await third.enter_list(Cost(memory=10, work=31.0))
        assert (caught.value.status, caught.value.retry_after) == (429, 30)
        with pytest.raises(Refusal) as caught:
            await third.enter_list(Cost(best_work=101.0))
        assert (caught.value.status, caught.value.kind) == (413, "too_costly")
        assert "PTFT_LIST_TIMEOUT_S" in str(caught.value)
        shared.open().charge(Cost(items=4, work=0.5))  # what is no list is let in beside them
        first.close()
        await waiting
        assert (shared.list_work.taken, shared.list_memory.taken) == (30.0, 390)
        given_up = asyncio.create_task(third.enter_list(Cost(memory=390, work=1.0)))
        await asyncio.sleep(0)
        given_up.cancel()
        await asyncio.gather(given_up, return_exceptions=True)
        second.close()
        third.close()
        assert (shared.list_work.taken, shared.list_memory.taken) == (0, 0)
        assert shared.memory.taken == 0

    asyncio.run(play())


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
