"""Fair queues: a lane for each request, and turns weighed by what they cost.

Self-clocked fair queueing (Golestani, INFOCOM 1994): an item's tag is its cost added to the tag of
what its lane gave last, or, where the lane is new, of what was taken last at all; the lowest tag is
taken. So each lane has the same share of the time, whatever its items cost: a request
with many items, or dear ones, holds up one with few by one item, and is not passed for ever. What
was given up (its future is done) is passed over.

Lanes of one caller (their attribute ``caller``, the name of an API key) share what is one caller's,
by the same rule: who asks with a thousand requests has no more of the time than who asks with one.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

__all__ = ["Lanes", "Waiting", "caller_of"]

T = TypeVar("T")


def caller_of(lane: object) -> str:
    """Whose request a lane is; empty where nobody asks who they are."""
    return str(getattr(lane, "caller", ""))


@dataclass(slots=True, eq=False)  # each is one of its own
class Waiting(Generic[T]):
    """An item in a queue, who waits for what comes of it, and what its turn costs."""

    item: T
    future: asyncio.Future[Any]
    cost: float


class _Lane(Generic[T]):
    """Items of one request.

    Args:
        tag: of what was taken from it last.
    """

    def __init__(self, tag: float) -> None:
        self.tag = tag
        self.queue: deque[Waiting[T]] = deque()

    @property
    def next_tag(self) -> float:
        """Of the first item."""
        return self.tag + self.queue[0].cost


class _Caller(Generic[T]):
    """Lanes of one caller.

    Args:
        name: of the caller.
        tag: of what was taken from any of them last.
    """

    def __init__(self, name: str, tag: float) -> None:
        self.name = name
        self.tag = tag
        self.lanes: dict[object, _Lane[T]] = {}
        self.last = 0.0  # tag of the lane that something was taken from last

    def ordered(self) -> list[tuple[object, _Lane[T]]]:
        """Lanes that hold something that is waited for, the lowest tag first."""
        for name, lane in list(self.lanes.items()):
            while lane.queue and lane.queue[0].future.done():
                lane.queue.popleft()
            if not lane.queue:
                del self.lanes[name]
        found = list(self.lanes.items())
        return found if len(found) == 1 else sorted(found, key=lambda one: one[1].next_tag)


class Lanes(Generic[T]):
    """Waiting items by caller and lane."""

    def __init__(self) -> None:
        self._callers: dict[str, _Caller[T]] = {}
        self._tag = 0.0  # of what was taken last

    def __bool__(self) -> bool:
        """Whether there may be any: what was given up counts until its turn comes."""
        return bool(self._callers)

    def __len__(self) -> int:
        """Items that somebody still waits for."""
        return len(self.waiting())

    def waiting(self) -> list[Waiting[T]]:
        """These items, lane by lane."""
        lanes = [lane for caller in self._callers.values() for lane in caller.lanes.values()]
        return [one for lane in lanes for one in lane.queue if not one.future.done()]

    def push(self, lane: object, item: T, future: asyncio.Future[Any], cost: float = 1.0) -> None:
        """Queue an item behind those of its lane.

        Args:
            cost: of its turn, more than 0, in a unit that all items share.
        """
        name = caller_of(lane)
        if (caller := self._callers.get(name)) is None:
            caller = self._callers[name] = _Caller(name, self._tag)
        if (own := caller.lanes.get(lane)) is None:
            own = caller.lanes[lane] = _Lane(caller.last)
        own.queue.append(Waiting(item, future, cost))

    def pop(self, allows: Callable[[T], bool] = lambda item: True) -> Waiting[T] | None:
        """Of the first items of all lanes the one with the lowest tag that is allowed, of the
        caller with the lowest; of equal tags that of the older. ``allows`` is asked in the order of
        the tags."""
        for caller, name, lane in self._ordered():
            if allows(lane.queue[0].item):
                found = lane.queue.popleft()
                lane.tag += found.cost
                caller.tag += found.cost
                caller.last = max(caller.last, lane.tag)
                self._tag = max(self._tag, caller.tag)
                if not lane.queue:
                    del caller.lanes[name]
                    if not caller.lanes:
                        del self._callers[caller.name]
                return found
        return None

    def _ordered(self) -> Iterator[tuple[_Caller[T], object, _Lane[T]]]:
        found = []
        for name, caller in list(self._callers.items()):
            if lanes := caller.ordered():
                found.append((caller.tag + lanes[0][1].queue[0].cost, caller, lanes))
            else:
                del self._callers[name]
        for _, caller, lanes in sorted(found, key=lambda one: one[0]):
            for key, lane in lanes:
                yield caller, key, lane
