"""How fast a run goes, and how long it still takes."""

import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

__all__ = ["TrainingClock", "duration"]

_RECENT = 20  # steps that the speed is taken over: noise evens out, a slow-down shows


class TrainingClock:
    """Times training, and stands still while something else goes on.

    Evaluations and checkpoints do not count as training, so that speeds of runs with more or fewer
    of them compare; the time left counts them, at the share that they took so far.

    Args:
        seen: samples seen before.
        total: samples of the whole run.
        seconds: of training before.
        clock: seconds that only grow.
    """

    def __init__(
        self,
        *,
        seen: int,
        total: int,
        seconds: float = 0.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._clock = clock
        self._total = total
        self._before = seconds
        self._started = clock()
        self._paused = 0.0
        self._marks: deque[tuple[float, int]] = deque([(0.0, seen)], maxlen=_RECENT + 1)

    def step(self, seen: int) -> float:
        """Note that ``seen`` samples were seen by now; returns :attr:`samples_per_second`."""
        self._marks.append((self._trained(), seen))
        return self.samples_per_second

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Stop the clock inside."""
        begin = self._clock()
        try:
            yield
        finally:
            elapsed = self._clock() - begin
            if len(self._marks) == 1:
                self._started += elapsed  # before the first step: it will not come again
            else:
                self._paused += elapsed

    @property
    def seconds(self) -> float:
        """Seconds of training, over all parts of the run."""
        return self._before + self._marks[-1][0]

    @property
    def samples_per_second(self) -> float:
        """Samples a second over the last 20 steps; 0 before the first."""
        (start, seen_then), (end, seen_now) = self._marks[0], self._marks[-1]
        return (seen_now - seen_then) / (end - start) if end > start else 0.0

    @property
    def left(self) -> float | None:
        """Seconds until the end at the speed of late; None before the first step."""
        speed = self.samples_per_second
        if speed == 0.0:
            return None
        trained = self._marks[-1][0]
        whole = (trained + self._paused) / trained  # seconds that pass for one of training
        return max(0, self._total - self._marks[-1][1]) / speed * whole

    def _trained(self) -> float:
        return self._clock() - self._started - self._paused


def duration(seconds: float) -> str:
    """Write seconds for people: ``4 s``, ``3 min 20 s``, ``2 h 05 min``, ``3 d 04 h``."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    if whole < 86400:
        return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
    return f"{whole // 86400} d {whole % 86400 // 3600:02d} h"
