"""Fair queues: a lane for each request, and one item of each lane in turn.

A request with many items cannot hold up one with few: whoever comes second waits for one item of
the first, not for all. What was given up (its future is done) is passed over.
"""

import asyncio
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

__all__ = ["Lanes", "Waiting"]

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Waiting(Generic[T]):
    """An item in a queue, and who waits for what comes of it."""

    item: T
    future: asyncio.Future[Any]


class Lanes(Generic[T]):
    """Waiting items by lane, taken round robin."""

    def __init__(self) -> None:
        self._lanes: OrderedDict[object, deque[Waiting[T]]] = OrderedDict()

    def __len__(self) -> int:
        """Items that somebody still waits for."""
        queues = self._lanes.values()
        return sum(not one.future.done() for queue in queues for one in queue)

    def push(self, lane: object, item: T, future: asyncio.Future[Any]) -> None:
        """Queue an item behind those of its lane; a new lane has its turn after the others."""
        self._lanes.setdefault(lane, deque()).append(Waiting(item, future))

    def pop(self, allows: Callable[[T], bool] = lambda item: True) -> Waiting[T] | None:
        """The next item that is allowed, of the lane whose turn is nearest; its lane goes last."""
        for lane, queue in list(self._lanes.items()):
            while queue and queue[0].future.done():
                queue.popleft()
            if not queue:
                del self._lanes[lane]
            elif allows(queue[0].item):
                found = queue.popleft()
                if queue:
                    self._lanes.move_to_end(lane)
                else:
                    del self._lanes[lane]
                return found
        return None
