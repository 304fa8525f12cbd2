"""Seconds of a step's parts."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch

__all__ = ["PartClock"]


class PartClock:
    """Adds up seconds by part: CPU seconds a thread on a CPU, so that other load does not count;
    wall time until the work is done on a GPU.

    Attributes:
        laps: seconds by part of each lap that is over.
    """

    def __init__(self, device: torch.device) -> None:
        self.laps: list[dict[str, float]] = []
        self._cuda = device.type == "cuda"
        self._now: dict[str, float] = {}

    @contextmanager
    def part(self, name: str, *, threads: int | None = None) -> Iterator[None]:
        """Time what runs inside; parts of one name are added.

        Args:
            threads: of the CPU that share the work, here or in other processes; absent: torch's,
                or a GPU.
        """
        wall = self._cuda and threads is None
        clock = time.perf_counter if wall else time.process_time
        started = clock()
        yield
        if wall:
            torch.cuda.synchronize()
        shared = 1 if wall else threads or torch.get_num_threads()
        self._now[name] = self._now.get(name, 0.0) + (clock() - started) / shared

    def lap(self) -> None:
        """End a lap; the parts begin at 0 again."""
        self.laps.append(self._now)
        self._now = {}
