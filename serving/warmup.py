"""How many items run through a tower at once: measured at the start, since it is another number on
every machine, provider and model."""

from collections.abc import Callable

__all__ = ["MOST", "MOST_ON_GPU", "best_size"]

MOST, MOST_ON_GPU = 16, 64
"""Items at once that are tried: on a CPU more gain nothing and hold up whoever comes meanwhile."""

_GAIN = 0.95  # of the seconds an item: less is worth twice the batch


def best_size(seconds: Callable[[int], float], most: int, longest: float) -> int:
    """The smallest of 1, 2, 4, ... from which twice as many at once gain less than 5 % an item.

    Args:
        seconds: runs a batch of so many and says how long it took.
        most: items at once.
        longest: seconds that a batch may take; one of a single item may take longer.
    """
    seconds(1)  # the first run of a shape also allocates
    size, each = 1, seconds(1)
    while 2 * size <= most and 2 * size * each <= longest:
        twice = seconds(2 * size)
        if twice / (2 * size) > _GAIN * each:
            break
        size, each = 2 * size, twice / (2 * size)
    return size
