"""What may be in the service at once: items, bytes and seconds of work. Beyond it, requests are
refused at the door.

The cost of a request is known before it is spent, charged to its ``Ticket``, and given back when
the answer has been written, the deadline has passed or the client has gone. Bounded work bounds the
time that an admitted request waits; refusing costs next to nothing, whereas what is decoded, queued
and then given up has cost as much as an answer.

A list of more inputs than a batch (:meth:`Ticket.enter_list`) runs a batch at a time, so that it is
never much in anybody's way: it has a budget of work of its own, within its own longer deadline, and
waits for a share of the memory rather than being refused.
"""

import math
from dataclasses import dataclass

from serving.budget import MOST_WAITING, ROUNDING, Budget
from serving.phases import NOT_TIMED, Phases
from serving.refusal import Refusal

__all__ = ["Admission", "Cost", "Ticket"]

_LONGEST_RETRY = 30  # seconds; a client that waits longer may as well ask
_FOR_LISTS = 1 / 4  # of the memory; with the largest body beside it, it is what the large may take


@dataclass(frozen=True)
class Cost:
    """What a request takes.

    Attributes:
        items: images, texts and prompts that go through a tower.
        memory: bytes that it holds until it is answered.
        work: seconds that it keeps towers and decoders busy, as they are busy now.
        best_work: the same on an idle machine.
    """

    items: int = 0
    memory: int = 0
    work: float = 0.0
    best_work: float = 0.0

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(
            self.items + other.items,
            self.memory + other.memory,
            self.work + other.work,
            self.best_work + other.best_work,
        )


class Admission:
    """The budgets: three of all requests, two of lists.

    Args:
        items: most items at once.
        memory: bytes that requests hold at once.
        work: seconds of admitted work.
        list_work: the same of lists.
    """

    def __init__(self, items: int, memory: int, work: float, list_work: float = math.inf) -> None:
        self.items = Budget(items, alone=True)
        self.memory = Budget(memory)
        self.work = Budget(work, alone=True)
        self.list_work = Budget(list_work, alone=True)
        self.list_memory = Budget(memory * _FOR_LISTS, alone=True)

    def open(self, phases: Phases = NOT_TIMED) -> "Ticket":
        """What a request's costs are charged to; nothing is taken yet."""
        return Ticket(self, phases)

    def retry_after(self) -> int:
        """Seconds after which there should be room."""
        return min(max(math.ceil(self.work.taken), 1), _LONGEST_RETRY)


class Ticket:
    """What one request holds; also its lane in every queue.

    Attributes:
        cost: what it holds.
        phases: where its seconds go.
        caller: whose API key the request brought, where that makes a difference; else empty.
        tokens: that its texts were, those that the tokenizer adds included.
    """

    def __init__(self, admission: Admission, phases: Phases) -> None:
        self._admission = admission
        self.phases = phases
        self.cost = Cost()
        self.caller = ""
        self.tokens = 0
        self._list_work = self._list_memory = 0.0

    def charge(self, cost: Cost) -> None:
        """Hold so much more.

        Raises:
            Refusal: 413 what no request may have, 429 what there is no room for now; what was held
                before is still held.
        """
        budgets, had = self._admission, self.cost
        parts = (
            (budgets.items, cost.items, had.items, "images and texts", "PTFT_MAX_QUEUE"),
            (budgets.memory, cost.memory, had.memory, "bytes", "PTFT_MAX_MEMORY_BYTES"),
            (budgets.work, cost.work, had.work, "s of work", "PTFT_MAX_WORK_S"),
        )
        whole = had + cost
        for (budget, *_, unit, setting), amount in zip(
            parts, (whole.items, whole.memory, whole.best_work), strict=True
        ):
            if amount > budget.most + ROUNDING:
                raise Refusal(
                    413,
                    "too_costly",
                    f"{_shown(amount)} {unit}; allowed in a request: {_shown(budget.most)} "
                    f"({setting})",
                )
        for budget, amount, held, unit, setting in parts:
            if amount and not budget.fits(amount, held, self.caller):
                raise Refusal(
                    429,
                    "queue_full",
                    f"{_shown(budget.taken)} {unit} are being answered and {_shown(amount)} more "
                    f"were asked for; allowed: {_shown(budget.limit)} at once ({setting})"
                    + self._share(budget),
                    retry_after=budgets.retry_after(),
                )
        for budget, amount, held, *_ in parts:
            if amount:
                budget.take(amount, held, self.caller)
        self.cost = whole

    def _share(self, budget: Budget) -> str:
        return f", and by {self.caller} no more than is free" if self.caller else ""

    async def enter_list(self, cost: Cost) -> None:
        """Hold what a list takes that runs a batch at a time; waits for its memory.

        Raises:
            Refusal: 413 what no list may have, 429 what lists have no room for now.
        """
        lists = self._admission.list_work
        setting = "PTFT_LIST_TIMEOUT_S"
        if cost.best_work > lists.most + ROUNDING:
            raise Refusal(
                413,
                "too_costly",
                f"{_shown(cost.best_work)} s of work; allowed in a list: {_shown(lists.most)} "
                f"(a third of {setting})",
            )
        if not lists.fits(cost.work, 0.0, self.caller):
            raise Refusal(
                429,
                "queue_full",
                f"{_shown(lists.taken)} s of lists are being answered and {_shown(cost.work)} more "
                f"were asked for; allowed: {_shown(lists.limit)} at once (a third of {setting})"
                + self._share(lists),
                retry_after=min(max(math.ceil(lists.taken), 1), _LONGEST_RETRY),
            )
        lists.take(cost.work, 0.0, self.caller)
        self._list_work = cost.work
        await self._wait(self._admission.list_memory, cost.memory)
        self._list_memory = cost.memory
        await self.wait_for_memory(cost.memory)

    async def wait_for_memory(self, amount: int) -> None:
        """Hold so many bytes more, once there is room.

        Raises:
            Refusal: 413 what there will never be, 429 where too many wait already.
        """
        memory = self._admission.memory
        if amount > memory.most:
            self.charge(Cost(memory=amount))
        await self._wait(memory, amount, self.cost.memory)
        self.cost += Cost(memory=amount)

    async def _wait(self, memory: Budget, amount: int, held: int = 0) -> None:
        if not await memory.wait(self, amount, held):
            raise Refusal(
                429,
                "memory_full",
                f"{MOST_WAITING} requests wait for memory already (PTFT_MAX_MEMORY_BYTES)",
                retry_after=self._admission.retry_after(),
            )

    def release_memory(self, amount: int) -> None:
        """Give back so many bytes of those that are held."""
        self._admission.memory.give(amount, self.cost.memory, self.caller)
        self.cost += Cost(memory=-amount)

    def close(self) -> None:
        """Give everything back."""
        cost, self.cost = self.cost, Cost()
        lists, self._list_work, self._list_memory = (
            (self._list_work, self._list_memory),
            0.0,
            0.0,
        )
        budgets = self._admission
        for budget, amount in (
            (budgets.items, cost.items),
            (budgets.memory, cost.memory),
            (budgets.work, cost.work),
            (budgets.list_work, lists[0]),
            (budgets.list_memory, lists[1]),
        ):
            if amount:
                budget.give(amount, None, self.caller)


def _shown(amount: float) -> str:
    return f"{amount:.0f}" if amount == int(amount) or amount >= 100 else f"{amount:.2g}"
