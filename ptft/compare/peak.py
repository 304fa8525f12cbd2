"""The most memory that this process has had at once."""

import sys

__all__ = ["peak_bytes"]


def peak_bytes() -> int:
    """Bytes; 0 on a system that does not tell (Windows)."""
    try:
        import resource
    except ImportError:
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # macOS counts bytes, Linux KiB
