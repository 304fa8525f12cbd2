"""Where things stand among those of their own group: one sort, however many groups there are."""

import numpy as np

__all__ = ["places_within"]


def places_within(groups: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Count for each entry the equal ones before it, and all equal ones: int64 (N,) each.

    Args:
        groups: (N,), numbers that are equal within a group.
    """
    order = np.argsort(groups, kind="stable")
    ordered = groups[order]
    starts = np.flatnonzero(np.append(True, ordered[1:] != ordered[:-1])[: len(groups)])
    sizes = np.diff(np.append(starts, len(groups)))
    place, size = np.empty((2, len(groups)), np.int64)
    place[order] = np.arange(len(groups)) - np.repeat(starts, sizes)
    size[order] = np.repeat(sizes, sizes)
    return place, size
