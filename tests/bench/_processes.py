"""CPU that a process and all below it have taken, as Linux counts it."""

import contextlib
import os
from pathlib import Path

__all__ = ["cpu_seconds", "family"]


def family(root: int) -> dict[int, float]:
    """Process -> its CPU seconds, of one and all that descend from it and still run."""
    ticks, parents = {}, {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it ended meanwhile
            fields = path.read_text().rpartition(")")[2].split()
            pid = int(path.parent.name)
            parents[pid], ticks[pid] = int(fields[1]), int(fields[11]) + int(fields[12])
    found = {root}
    while more := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= more
    return {pid: ticks[pid] / os.sysconf("SC_CLK_TCK") for pid in found if pid in ticks}


def cpu_seconds(root: int) -> float:
    """Of all of them."""
    return sum(family(root).values())
