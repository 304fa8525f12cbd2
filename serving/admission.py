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
from collections.abc import Callable
from dataclasses import dataclass

from serving.lanes import Lanes
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


class Budget:
    """An amount that is shared out; all methods belong to one event loop.

    Args:
        limit: of what is taken at once.
        alone: whether one request may have all of it, or more, while there is no other.
    """

    def __init__(self, limit: float, *, alone: bool = False) -> None:
        self.limit = limit
        self.most = limit if alone else limit * _FOR_LARGE  # that one request can be given
        self.taken = 0.0
        self._small = 0.0  # of it, by those that hold little
        self._alone = alone
        self._queue: Lanes[float] = Lanes()

    def fits(self, amount: float, held: float = 0.0) -> bool:
        """Whether there is room for so much more, for a request that holds ``held`` already."""
        bound = self.limit if self._is_small(amount + held) else self.limit * _FOR_LARGE
        alone = self._alone and self.taken <= held
        return alone or self.taken + amount <= bound + _ROUNDING

    def take(self, amount: float, held: float = 0.0) -> None:
        """Take it, room or not: ask ``fits`` first.

        Args:
            held: by this request before.
        """
        self._change(held, held + amount)

    def give(self, amount: float, held: float | None = None) -> None:
        """Give back.

        Args:
            held: by this request before; absent: no more than this.
        """
        held = amount if held is None else held
        self._change(held, held - amount)
        self._let_in()

    def _is_small(self, amount: float) -> bool:
        return amount <= self.limit * _SMALL

    def _change(self, before: float, after: float) -> None:
        self.taken = max(0.0, self.taken + after - before)
        for held, sign in ((before, -1), (after, 1)):
            if self._is_small(held):
                self._small += sign * held
        if self.taken < _ROUNDING:
            self.taken = self._small = 0.0

    async def wait(self, lane: object, amount: float) -> bool:
        """Take it once there is room, in turns weighed by the amounts (``serving.lanes``): who
        wants little is not behind those who want much. False where too many wait: then the one
        that wants most does not wait any longer.

        Args:
            lane: whose turn it is: a request.
        """
        if self.fits(amount) and not len(self._queue):
            self.take(amount)
            return True
        if len(self._queue) >= _MOST_WAITING:
            dearest = max(self._queue.waiting(), key=lambda one: one.cost)
            if dearest.cost <= amount:
                return False
            dearest.future.set_result(False)
        future: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._queue.push(lane, amount, future, amount)
        self._let_in()
        try:
            return await future
        except asyncio.CancelledError:
            if future.done() and not future.cancelled() and future.result():
                self.give(amount)  # it was given while the request was given up
            else:
                self._let_in()
            raise

    def _let_in(self) -> None:
        """Give to those whose turn it is and for whom there is room. Behind a large one for which
        there is none only small ones go on, within what is theirs alone, so that it has its turn.
        """
        while self._queue:
            found = self._queue.pop(self._allows())
            if found is None:
                return
            self.take(found.item)
            found.future.set_result(True)

    def _allows(self) -> Callable[[float], bool]:
        waiting = {True: False, False: False}  # whether a small one, or a large one, has to

        def allows(amount: float) -> bool:
            small = self._is_small(amount)
            fits = not waiting[small] and self.fits(amount)
            if waiting[False]:
                fits = fits and self._small + amount <= self.limit * (1 - _FOR_LARGE)
            waiting[small] = waiting[small] or not fits
            return fits

        return allows


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
        self.work = Budget(work, alone=True)

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
            if amount > budget.most + _ROUNDING:
                raise Refusal(
                    413,
                    "too_costly",
                    f"{_shown(amount)} {unit}; allowed in a request: {_shown(budget.most)} "
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
        for budget, amount, held, *_ in parts:
            budget.take(amount, held)
        self.cost = whole

    async def wait_for_memory(self, amount: int) -> None:
        """Hold so many bytes more, once there is room.

        Raises:
            Refusal: 413 what there will never be, 429 where too many wait already.
        """
        memory = self._admission.memory
        if amount > memory.most:
            self.charge(Cost(memory=amount))
        if not await memory.wait(self, amount):
            raise Refusal(
                429,
                "memory_full",
                f"{_MOST_WAITING} requests wait for memory already (PTFT_MAX_MEMORY_BYTES)",
                retry_after=self._admission.retry_after(),
            )
        self.cost += Cost(memory=amount)

    def release_memory(self, amount: int) -> None:
        """Give back so many bytes of those that are held."""
        self._admission.memory.give(amount, self.cost.memory)
        self.cost += Cost(memory=-amount)

    def close(self) -> None:
        """Give everything back."""
        cost, self.cost = self.cost, Cost()
        self._admission.items.give(cost.items)
        self._admission.memory.give(cost.memory)
        self._admission.work.give(cost.work)


def _shown(amount: float) -> str:
    return f"{amount:.0f}" if amount == int(amount) or amount >= 100 else f"{amount:.2g}"
