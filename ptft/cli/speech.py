"""Where a command's saying goes: to stderr, for people or for machines."""

import json
import logging
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from ptft.printable import printable
from ptft.speech import LOG, Bar

if TYPE_CHECKING:
    from rich.console import Console

    from ptft.cli.console import TrainingBar

__all__ = ["LogFormat", "fail", "listen", "stderr"]


class LogFormat(StrEnum):
    """Of what is said on stderr."""

    TEXT = "text"
    JSON = "json"


_asked = LogFormat.TEXT


def listen(log_format: LogFormat, *, quiet: bool, verbose: bool) -> Callable[[], None]:
    """Show what ptft says from here on.

    Args:
        quiet: warnings and errors alone; no tables, no bars.
        verbose: each report of progress too, as a line.

    Returns:
        What ends it.
    """
    global _asked
    _asked = log_format
    level = logging.WARNING if quiet else logging.DEBUG if verbose else logging.INFO
    handler = _Lines(level) if log_format is LogFormat.JSON else _Shown(level)
    before, LOG.propagate = (LOG.level, LOG.propagate), False  # others put handlers on the root
    LOG.addHandler(handler)
    LOG.setLevel(min(level, handler.wants))

    def end() -> None:
        LOG.removeHandler(handler)
        handler.close()
        level, LOG.propagate = before
        LOG.setLevel(level)

    return end


def stderr() -> "Console":
    """The terminal for tables and bars; it shows nothing where stderr is quiet or for machines."""
    from ptft.cli.console import PlainConsole

    for handler in LOG.handlers:
        if isinstance(handler, _Shown) and handler.shows <= logging.INFO:
            return handler.console
        if isinstance(handler, _Shown | _Lines):
            return PlainConsole(quiet=True)
    return PlainConsole()


def fail(text: str, **fields: object) -> None:
    """Say why a command ended, in the form that was asked for; nobody listens any more."""
    if _asked is LogFormat.JSON:
        record = LOG.makeRecord(
            LOG.name, logging.ERROR, "", 0, text, (), None, extra={"fields": fields}
        )
        _Lines().emit(record)
    else:
        print(f"ptft: {printable(text, lines=True)}", file=sys.stderr)


class _Lines(logging.Handler):
    """A JSON object a record."""

    wants = logging.CRITICAL

    def emit(self, record: logging.LogRecord) -> None:
        values: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        values = {**getattr(record, "fields", {}), **values}
        print(json.dumps(values, default=str), file=sys.stderr, flush=True)


class _Shown(logging.Handler):
    """Lines as they are; on a terminal a bar for what has one, and no line in its place."""

    def __init__(self, level: int) -> None:
        super().__init__()
        self.shows = level
        self.live = sys.stderr.isatty() and level == logging.INFO
        self.wants = logging.DEBUG if self.live else level
        self._console: Console | None = None
        self._bar: TrainingBar | None = None

    @property
    def console(self) -> "Console":
        if self._console is None:
            from ptft.cli.console import PlainConsole

            self._console = PlainConsole()
        return self._console

    def emit(self, record: logging.LogRecord) -> None:
        bar: Bar | None = getattr(record, "bar", None)
        if self.live and bar is not None:
            self._draw(bar)
        elif record.levelno >= self.shows and not (self.live and getattr(record, "for_bar", False)):
            text = record.getMessage()
            if record.levelno >= logging.WARNING:
                text = f"{record.levelname.lower()}: {text}"
            self.console.print(text, highlight=False, soft_wrap=True, markup=False)

    def close(self) -> None:
        if self._bar is not None:
            self._bar.stop()
        super().close()

    def _draw(self, bar: Bar) -> None:
        from ptft.cli.console import TrainingBar

        if self._bar is None:
            self._bar = TrainingBar(self.console)
            self._bar.start()
        several = len(self._bar.tasks) > 1
        self._bar.show(bar)
        if bar.over and not several:
            self._bar.stop()
            self._bar = None
