"""CPU and private memory that processes have taken, as Linux counts them."""

import contextlib
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

__all__ = ["Watch", "cpu_seconds", "family", "private_mb"]


def private_mb(pid: int | str = "self") -> float:
    """MB of a process that are no pages of files (RssAnon); 0 of one that is gone."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0.0
    found = dict(line.split(":", 1) for line in lines if ":" in line)
    return int(found.get("RssAnon", "0 kB").split()[0]) / 1024


@dataclass
class Watch:
    """The highest private memory of this process while it is watched, in MB."""

    high: float = 0.0
    ended: threading.Event = field(default_factory=threading.Event)

    @contextmanager
    def watching(self) -> Iterator["Watch"]:
        def look() -> None:
            while not self.ended.wait(0.01):
                self.high = max(self.high, private_mb())

        thread = threading.Thread(target=look, daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self.ended.set()
            thread.join()
            self.high = max(self.high, private_mb())


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
