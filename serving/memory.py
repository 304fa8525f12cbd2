"""Memory: the C library's is given back when it is freed, Python's is not looked through for ever.

glibc maps large blocks apart and unmaps them when they are freed; but each one freed raises the
size from which it does so, up to 32 MB, and from then on a picture's pixels come from heaps that
stay. A fixed threshold keeps a worker at what it holds, and not at what it once held.
"""

import ctypes
import gc
import sys

__all__ = ["freeze_what_is_there", "give_back_at_once"]

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8  # malloc.h
_LARGE = 4 << 20  # bytes; of smaller blocks there are many, and mapping each anew takes time:
# with 1 MiB a picture of 640x480 cost 867 page faults and a tenth more of the CPU
_KEPT = 16 << 20  # bytes at the end of an arena that are not given back at once
_ARENAS = 4


def give_back_at_once() -> None:
    """For the whole process; where there is no glibc nothing changes."""
    if sys.platform != "linux":
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, _LARGE)
        mallopt(_M_TRIM_THRESHOLD, _KEPT)
        mallopt(_M_ARENA_MAX, _ARENAS)


def freeze_what_is_there() -> None:
    """Leave modules, the model and whatever else has come to stay out of every later collection,
    each of which would follow all their references."""
    gc.collect()
    gc.freeze()
