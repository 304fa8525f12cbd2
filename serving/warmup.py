"""How many items run through a tower at once: measured at the start, since it is another number on
every machine, provider and model."""

import math
from collections.abc import Callable

__all__ = ["MOST", "MOST_ON_GPU", "best_size"]

MOST, MOST_ON_GPU = 16, 64
"""Items at once that are tried: on a CPU more gain nothing and hold up whoever comes meanwhile."""

_GAIN = 0.95  # of the seconds an item: less is not worth twice the batch
_PATIENCE = 2  # sizes without a gain: one may be an accident
_RUNS = 3  # of each size, beside the best so far


def best_size(seconds: Callable[[int], float], most: int, longest: float) -> int:
    """Of 1, 2, 4, ... items at once the smallest that takes at most 5 % more an item than the best.

    Args:
        seconds: runs a batch of so many and says how long it took.
        most: items at once.
        longest: seconds that a batch may take; one of a single item may take longer.
    """

    found: dict[int, float] = {}

    def measure(*sizes: int) -> None:
        """In turn, so that whatever else the machine does meanwhile meets all of them; the least
        counts: the first of a shape also allocates, and work beside it only adds."""
        for count in sizes * _RUNS:
            found[count] = min(found.get(count, math.inf), seconds(count) / count)

    measure(1)
    size, best = 1, 1
    while 2 * size <= most and 2 * size * found[size] <= longest and size < best << _PATIENCE:
        size *= 2
        measure(best, size)
        if found[size] <= _GAIN * found[best]:
            best = size
    least = min(found.values())
    return min(count for count, one in found.items() if _GAIN * one <= least)
