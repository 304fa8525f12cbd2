"""torch's CPU threads while a run lasts, and the caller's own count again after it.

How many threads share a sum decides its last bits: a library that left the count changed would
change the figures of whatever its caller computes next.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

__all__ = ["cpu_threads"]


@contextmanager
def cpu_threads(count: int | None) -> Iterator[None]:
    """So many threads inside; None leaves the count as it is."""
    before = torch.get_num_threads()
    if count is not None:
        torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
