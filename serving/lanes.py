"""Fair queues: a lane for each request, and turns weighed by what they cost.

Self-clocked fair queueing (Golestani, INFOCOM 1994): an item's tag is its cost added to the tag of
what its lane gave last, or, where the lane is new, of what was taken last at all; the lowest tag is
taken. So each lane has the same share of the time, whatever its items cost: a request
with many items, or dear ones, holds up one with few by one item, and is not passed for ever. What
was given up (its future is done) is passed over.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

__all__ = ["Lanes", "Waiting"]

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
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


class Lanes(Generic[T]):
    """Waiting items by lane."""

    def __init__(self) -> None:
        self._lanes: dict[object, _Lane[T]] = {}
        self._tag = 0.0  # of what was taken last

    def __len__(self) -> int:
        """Items that somebody still waits for."""
        return len(self.waiting())

    def waiting(self) -> list[Waiting[T]]:
        """These items, lane by lane."""
        lanes = self._lanes.values()
        return [one for lane in lanes for one in lane.queue if not one.future.done()]

    def push(self, lane: object, item: T, future: asyncio.Future[Any], cost: float = 1.0) -> None:
        """Queue an item behind those of its lane.

        Args:
            cost: of its turn, more than 0, in a unit that all items share.
        """
        if lane not in self._lanes:
            self._lanes[lane] = _Lane(self._tag)
        self._lanes[lane].queue.append(Waiting(item, future, cost))

    def pop(self, allows: Callable[[T], bool] = lambda item: True) -> Waiting[T] | None:
        """Of the first items of all lanes the one with the lowest tag that is allowed; of equal
        tags that of the older lane. ``allows`` is asked in the order of the tags."""
        for name, lane in list(self._lanes.items()):
            while lane.queue and lane.queue[0].future.done():
                lane.queue.popleft()
            if not lane.queue:
                del self._lanes[name]
        for name, lane in sorted(self._lanes.items(), key=lambda one: one[1].next_tag):
            if allows(lane.queue[0].item):
                lane.tag = lane.next_tag
                self._tag = max(self._tag, lane.tag)
                found = lane.queue.popleft()
                if not lane.queue:
                    del self._lanes[name]
                return found
        return None
