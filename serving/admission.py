"""What may be in the service at once: items, bytes and seconds of work. Beyond it, requests are
refused at the door.

The cost of a request is known before it is spent, charged to its ``Ticket``, and given back when
the answer has been written, the deadline has passed or the client has gone. Bounded work bounds the
time that an admitted request waits; refusing costs next to nothing, whereas what is decoded, queued
and then given up has cost as much as an answer.

The last quarter of each budget is for small requests alone: a few large ones cannot have everybody
else refused.
"""

import asyncio
import math
from collections import deque
from dataclasses import dataclass

from serving.phases import NOT_TIMED, Phases
from serving.refusal import Refusal

__all__ = ["Admission", "Budget", "Cost", "Ticket"]

_LONGEST_RETRY = 30  # seconds; a client that waits longer may as well ask
_SMALL, _FOR_LARGE = 1 / 16, 3 / 4  # of a budget: what is small, and what the large may take
_ROUNDING = 1e-9  # of sums of seconds
_MOST_WAITING = 64  # bodies that wait for memory; each holds some 300 kB in the server's buffers


@dataclass(frozen=True)
class Cost:
    """What a request takes.

    Attributes:
        items: images, texts and prompts that go through a tower.
        memory: bytes that it holds until it is answered.
        work: seconds that it keeps towers and decoders busy.
    """

    items: int = 0
    memory: int = 0
    work: float = 0.0

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(self.items + other.items, self.memory + other.memory, self.work + other.work)


class Budget:
    """An amount that is shared out; all methods belong to one event loop.

    Args:
        limit: of what is taken at once.
        alone: whether one request may have all of it, while there is no other.
    """

    def __init__(self, limit: float, *, alone: bool = False) -> None:
        self.limit = limit
        self.most = limit if alone else limit * _FOR_LARGE  # that one request can be given
        self.taken = 0.0
        self._queue: deque[tuple[float, asyncio.Future[None]]] = deque()

    def fits(self, amount: float, held: float = 0.0) -> bool:
        """Whether there is room for so much more, for a request that holds ``held`` already."""
        small = amount + held <= self.limit * _SMALL
        alone = self.taken <= held
        bound = self.limit if small else self.most if alone else self.limit * _FOR_LARGE
        return self.taken + amount <= bound + _ROUNDING

    def take(self, amount: float) -> None:
        """Take it, room or not: ask ``fits`` first."""
        self.taken += amount

    def give(self, amount: float) -> None:
        """Give back."""
        self.taken -= amount
        if self.taken < _ROUNDING:
            self.taken = 0.0
        while self._queue:
            wanted, future = self._queue[0]
            if not future.done():
                if not self.fits(wanted):
                    return
                self.take(wanted)
                future.set_result(None)
            self._queue.popleft()

    async def wait(self, amount: float) -> bool:
        """Take it once there is room, in order of arrival; False where too many wait already."""
        if self.fits(amount) and not self._queue:
            self.take(amount)
            return True
        if sum(not future.done() for _, future in self._queue) >= _MOST_WAITING:
            return False
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._queue.append((amount, future))
        try:
            await future
        except asyncio.CancelledError:
            if future.done() and not future.cancelled():
                self.give(amount)  # it was given while the request was given up
            raise
        return True


class Admission:
    """The three budgets.

    Args:
        items: most items at once.
        memory: bytes that requests hold at once.
        work: seconds of admitted work.
    """

    def __init__(self, items: int, memory: int, work: float) -> None:
        self.items = Budget(items, alone=True)
        self.memory = Budget(memory)
        self.work = Budget(work)

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
        tokens: that its texts were, those that the tokenizer adds included.
    """

    def __init__(self, admission: Admission, phases: Phases) -> None:
        self._admission = admission
        self.phases = phases
        self.cost = Cost()
        self.tokens = 0

    def charge(self, cost: Cost) -> None:
        """Hold so much more.

        Raises:
            Refusal: 413 what no request may have, 429 what there is no room for now; what was held
                before is still held.
        """
        budgets = self._admission
        parts = (
            (budgets.items, cost.items, self.cost.items, "images and texts", "PTFT_MAX_QUEUE"),
            (budgets.memory, cost.memory, self.cost.memory, "bytes", "PTFT_MAX_MEMORY_BYTES"),
            (budgets.work, cost.work, self.cost.work, "s of work", "PTFT_MAX_WORK_S"),
        )
        for budget, amount, held, unit, setting in parts:
            if amount + held > budget.most + _ROUNDING:
                raise Refusal(
                    413,
                    "too_costly",
                    f"{_shown(amount + held)} {unit}; allowed in a request: {_shown(budget.most)} "
                    f"({setting})",
                )
        for budget, amount, held, unit, setting in parts:
            if amount and not budget.fits(amount, held):
                raise Refusal(
                    429,
                    "queue_full",
                    f"{_shown(budget.taken)} {unit} are being answered and {_shown(amount)} more "
                    f"were asked for; allowed: {_shown(budget.limit)} at once ({setting})",
                    retry_after=budgets.retry_after(),
                )
        for budget, amount, *_ in parts:
            budget.take(amount)
        self.cost += cost

    async def wait_for_memory(self, amount: int) -> None:
        """Hold so many bytes more, once there is room.

        Raises:
            Refusal: 413 what there will never be, 429 where too many wait already.
        """
        memory = self._admission.memory
        if amount > memory.most:
            self.charge(Cost(memory=amount))
        if not await memory.wait(amount):
            raise Refusal(
                429,
                "memory_full",
                f"{_MOST_WAITING} requests wait for memory already (PTFT_MAX_MEMORY_BYTES)",
                retry_after=self._admission.retry_after(),
            )
        self.cost += Cost(memory=amount)

    def release_memory(self, amount: int) -> None:
        """Give back so many bytes of those that are held."""
        self._admission.memory.give(amount)
        self.cost += Cost(memory=-amount)

    def close(self) -> None:
        """Give everything back."""
        cost, self.cost = self.cost, Cost()
        self._admission.items.give(cost.items)
        self._admission.memory.give(cost.memory)
        self._admission.work.give(cost.work)


def _shown(amount: float) -> str:
    return f"{amount:.0f}" if amount == int(amount) or amount >= 100 else f"{amount:.2g}"
