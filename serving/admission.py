"""How much may be in the service at once: beyond it, requests are refused at the door.

A bounded number of items bounds the time that an admitted one waits. Refusing costs next to
nothing, whereas an item that is decoded, queued and then given up has cost as much as an answer.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from serving.refusal import Refusal

__all__ = ["Admission", "Slots"]

_LONGEST_RETRY = 30  # seconds; a client that waits longer may as well ask


class Admission:
    """Counts items (images, texts) from a request's arrival to its answer.

    Args:
        limit: most items at once.
        changed: told the count whenever it changes.
    """

    def __init__(self, limit: int, changed: Callable[[int], None]) -> None:
        self._limit = limit
        self._changed = changed
        self._taken = 0
        self._seconds_per_item = 0.0

    @contextmanager
    def enter(self) -> Iterator["Slots"]:
        """Admit a request as one item, before its body is read; ``Slots.hold`` tells the rest.

        Raises:
            Refusal: 429, with the seconds after which there should be room.
        """
        slots = Slots(self)
        slots.hold(1)
        try:
            yield slots
        finally:
            self._taken -= slots.held
            self._changed(self._taken)

    def observe(self, items: int, seconds: float) -> None:
        """A batch of so many items took so long: what Retry-After is worked out from."""
        recent = seconds / items
        self._seconds_per_item += (recent - self._seconds_per_item) * 0.1

    def take(self, items: int) -> None:
        """Count items in, or refuse them."""
        if self._taken + items > self._limit:
            wait = math.ceil(self._taken * self._seconds_per_item)
            raise Refusal(
                429,
                "queue_full",
                f"{self._taken} images and texts are being answered and {items} more were asked "
                f"for; allowed: {self._limit} at once",
                retry_after=min(max(wait, 1), _LONGEST_RETRY),
            )
        self._taken += items
        self._changed(self._taken)


class Slots:
    """What one request holds of an ``Admission``."""

    def __init__(self, admission: Admission) -> None:
        self._admission = admission
        self.held = 0

    def hold(self, items: int) -> None:
        """Hold so many items in all; never fewer than before.

        Raises:
            Refusal: 429; what was held before is still held.
        """
        if items > self.held:
            self._admission.take(items - self.held)
            self.held = items
