"""An amount that requests share: small ones keep a part of it, callers each a share, and who waits
does so in turns.

The last quarter is for small requests alone: a few large ones cannot have everybody else refused,
and one that may have all of it while it is alone has not that quarter.
And where requests are of several callers (API keys), none holds more than is still free: what one
may have shrinks as the whole fills, as queues in a switch's shared memory do (dynamic thresholds,
Choudhury and Hahne, IEEE/ACM ToN 1998). A flood by one key leaves half to the others, floods by two
leave a third.
"""

import asyncio
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from serving.lanes import Lanes, caller_of

__all__ = ["MOST_WAITING", "ROUNDING", "Budget"]

_SMALL, _FOR_LARGE = 1 / 16, 3 / 4  # of a budget: what is small, and what the large may take
MOST_WAITING = 64
"""Bodies that wait for memory; each holds some 300 kB in the server's buffers."""

ROUNDING = 1e-9
"""Of sums of seconds."""


@dataclass(frozen=True, slots=True)
class _Wanted:
    """By a request that waits: how much, what it holds already, and whose it is."""

    amount: float
    held: float
    caller: str


class Budget:
    """An amount that is shared out; all methods belong to one event loop.

    Args:
        limit: of what is taken at once.
        alone: whether one request may have all of it, or more, while there is no other.
    """

    def __init__(self, limit: float, *, alone: bool = False) -> None:
        self.limit = limit
        self._small_most = limit * _SMALL
        self.most = limit if alone else limit * _FOR_LARGE  # that one request can be given
        self.taken = 0.0
        self._small = 0.0  # of it, by those that hold little
        self._alone = alone
        self._queue: Lanes[_Wanted] = Lanes()
        self._of: Counter[str] = Counter()  # what callers hold

    def fits(self, amount: float, held: float = 0.0, caller: str = "") -> bool:
        """Whether there is room for so much more, for a request that holds ``held`` already."""
        if self._alone and self.taken <= held:
            return True
        free = self._free(amount + held)
        return amount <= free + ROUNDING and self.is_share(amount, held, caller)

    def is_share(self, amount: float, held: float, caller: str) -> bool:
        """Whether a caller that has so much more holds no more than is free now."""
        if not caller:
            return True
        free = max(self.limit - self.taken, self._free(amount + held))
        return self._of[caller] + amount <= free + ROUNDING

    def _free(self, amount: float) -> float:
        """Room for a request that would hold so much in all."""
        if amount <= self._small_most:
            return max(self.limit - self.taken, self.limit * (1 - _FOR_LARGE) - self._small)
        return self.limit * _FOR_LARGE - self.taken

    def take(self, amount: float, held: float = 0.0, caller: str = "") -> None:
        """Take it, room or not: ask ``fits`` first.

        Args:
            held: by this request before.
            caller: whose request it is; empty: nobody asks.
        """
        self._change(held, held + amount, caller)

    def give(self, amount: float, held: float | None = None, caller: str = "") -> None:
        """Give back.

        Args:
            held: by this request before; absent: no more than this.
            caller: as it was taken.
        """
        held = amount if held is None else held
        self._change(held, held - amount, caller)
        if self._queue:
            self._let_in()

    def _change(self, before: float, after: float, caller: str) -> None:
        self.taken = max(0.0, self.taken + after - before)
        if caller:
            self._of[caller] += after - before  # type: ignore[assignment]  # a Counter of floats
            if self._of[caller] < ROUNDING:
                del self._of[caller]
        small = self._small_most
        self._small += (after if after <= small else 0.0) - (before if before <= small else 0.0)
        if self.taken < ROUNDING:
            self.taken = self._small = 0.0
            self._of.clear()

    async def wait(self, lane: object, amount: float, held: float = 0.0) -> bool:
        """Take it once there is room, in turns weighed by the amounts (``serving.lanes``): who
        wants little is not behind those who want much. False where too many wait: then the one
        that wants most, of the caller who has most that wait, does not wait any longer.

        Args:
            lane: whose turn it is: a request.
            held: by it already.
        """
        wanted = _Wanted(amount, held, caller_of(lane))
        if self.fits(amount, held, wanted.caller) and not len(self._queue):
            self.take(amount, held, wanted.caller)
            return True
        if not self._may_wait(wanted):
            return False
        future: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._queue.push(lane, wanted, future, amount)
        self._let_in()
        try:
            return await future
        except asyncio.CancelledError:
            if future.done() and not future.cancelled() and future.result():
                # it was given while the request was given up
                self.give(amount, held + amount, wanted.caller)
            else:
                self._let_in()
            raise

    def _may_wait(self, wanted: _Wanted) -> bool:
        """Whether there is a place to wait; where there is none, perhaps another's."""
        waiting = self._queue.waiting()
        if len(waiting) < MOST_WAITING:
            return True
        each = Counter(one.item.caller for one in waiting)
        dearest = max(waiting, key=lambda one: (each[one.item.caller], one.cost))
        rank = (each[dearest.item.caller], dearest.cost)
        if rank <= (each[wanted.caller] + (wanted.caller != dearest.item.caller), wanted.amount):
            return False
        dearest.future.set_result(False)
        return True

    def _let_in(self) -> None:
        """Give to those whose turn it is and for whom there is room. Behind a large one for which
        there is none only small ones go on, within what is theirs alone, so that it has its turn.
        """
        while self._queue:
            found = self._queue.pop(self._allows())
            if found is None:
                return
            self.take(found.item.amount, found.item.held, found.item.caller)
            found.future.set_result(True)

    def _allows(self) -> Callable[[_Wanted], bool]:
        waiting = {True: False, False: False}  # whether a small one, or a large one, has to

        def allows(wanted: _Wanted) -> bool:
            amount, held = wanted.amount, wanted.held
            if self.taken > held and not self.is_share(amount, held, wanted.caller):
                return False  # by its own caller, which is nothing to those of others
            small = amount + held <= self._small_most
            fits = not waiting[small] and self.fits(amount, held)
            if waiting[False]:
                fits = fits and self._small + amount <= self.limit * (1 - _FOR_LARGE)
            waiting[small] = waiting[small] or not fits
            return fits

        return allows
