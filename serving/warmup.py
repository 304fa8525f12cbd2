"""How many items run through a tower at once: measured at the start, since it is another number on
every machine, provider and model."""

from collections.abc import Callable

__all__ = ["MOST", "MOST_ON_GPU", "best_size"]

MOST, MOST_ON_GPU = 16, 64
"""Items at once that are tried: on a CPU more gain nothing and hold up whoever comes meanwhile."""

_GAIN = 0.95  # of the seconds an item: less is not worth twice the batch
_PATIENCE = 2  # sizes without a gain: one may be an accident


def best_size(seconds: Callable[[int], float], most: int, longest: float) -> int:
    """Of 1, 2, 4, ... items at once the smallest that takes at most 5 % more an item than the best.

    Args:
        seconds: runs a batch of so many and says how long it took.
        most: items at once.
        longest: seconds that a batch may take; one of a single item may take longer.
    """

    def each(count: int) -> float:
        """Of two runs: the first of a shape also allocates."""
        return min(seconds(count), seconds(count)) / count

    found = {1: each(1)}
    size, best = 1, 1
    while 2 * size <= most and 2 * size * found[size] <= longest and size < best << _PATIENCE:
        size *= 2
        found[size] = each(size)
        if found[size] <= _GAIN * found[best]:
            best = size
    least = min(found.values())
    return min(count for count, one in found.items() if _GAIN * one <= least)
