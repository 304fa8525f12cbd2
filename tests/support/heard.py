"""A logger that keeps what it is told."""

import logging
from collections.abc import Callable

__all__ = ["Heard"]


class Heard(logging.Logger):
    """Attributes:
    lines: of level INFO and above, in order.
    """

    def __init__(self, then: Callable[[], object] = lambda: None) -> None:
        super().__init__("heard", logging.INFO)
        self.lines: list[str] = []
        self._then = then

    def handle(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())
        self._then()
