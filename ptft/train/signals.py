"""Stop at the next step when asked to, instead of in the middle of one."""

import signal
from types import FrameType
from typing import Self

__all__ = ["Stop"]


class Stop:
    """Within this context SIGTERM and SIGINT set ``signal`` and nothing else.

    A second one of the same kind acts as it always did, for those who mean it.
    """

    def __init__(self) -> None:
        self.signal: int | None = None
        self._before: dict[int, object] = {}

    def __enter__(self) -> Self:
        for number in (signal.SIGTERM, signal.SIGINT):
            try:
                self._before[number] = signal.signal(number, self._note)
            except ValueError:  # not in the main thread: its owner handles signals
                break
        return self

    def __exit__(self, *raised: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.signal = number
        signal.signal(number, self._before[number])  # type: ignore[arg-type]
