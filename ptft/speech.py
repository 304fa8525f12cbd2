"""What ptft says while it works: records of the logger ``ptft``, as any library's.

A line is a record of level INFO. How far a training is comes as DEBUG records with a :class:`Bar`,
and every few seconds as a line for who sees no bar. ``record.fields`` has the figures of either by
name. Who uses the library decides what becomes of them; the command shows them on stderr
(:mod:`ptft.cli.speech`).
"""

import logging
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

from ptft.printable import printable

__all__ = [
    "LOG",
    "SILENT",
    "Bar",
    "ProgressCallback",
    "Tell",
    "advance",
    "counted",
    "said_by_another",
    "say",
    "tell",
    "tell_once",
    "warn",
]

LOG = logging.getLogger("ptft")
SILENT = logging.getLogger("ptft.silent")
"""Of work that nobody is told of: a trial, a rank that is not the first."""
SILENT.disabled = True
_SOON, _MOVE, _LINE = 2.0, 0.25, 10.0  # seconds until a bar is seen, it moves, a line is said
_T = TypeVar("_T")
_told: set[str] = set()  # lines of which each is said once
_by_another = False  # by another process

Tell = Callable[[str], None]
"""Called with what is being done, in words, as it begins."""

ProgressCallback = Callable[[str, int, int], None]
"""Called with what is counted, how many are done, and how many there are."""


@dataclass(frozen=True)
class Bar:
    """How far something is.

    Attributes:
        what: it is.
        done, total: of its parts.
        figures: in words, beside it.
        left: in words: the time that it still takes.
        over: whether this is the last that is heard of it.
    """

    what: str
    done: int
    total: int
    figures: str = ""
    left: str = ""
    over: bool = False


def say(log: logging.Logger, text: str, *, for_bar: bool = False, **fields: object) -> None:
    """A line, in which nothing steers a terminal (:func:`ptft.printable.printable`).

    Args:
        for_bar: it tells what a bar shows as well.
        fields: what it says, by name, for machines.
    """
    if log.isEnabledFor(logging.INFO):
        extra = {"fields": fields, "for_bar": for_bar}
        log.info("%s", printable(text, lines=True), extra=extra, stacklevel=2)


def tell(text: str) -> None:
    """A line of ptft's own logger."""
    if not _by_another:
        say(LOG, text)


@contextmanager
def said_by_another(yes: bool) -> Iterator[None]:
    """In here :func:`tell` says nothing, if ``yes``: other processes do the same, and one of
    them says it."""
    global _by_another
    before, _by_another = _by_another, yes
    try:
        yield
    finally:
        _by_another = before


def tell_once(text: str) -> None:
    """A line that says nothing new when it comes again in this process."""
    if text not in _told:
        _told.add(text)
        tell(text)


def warn(text: str) -> None:
    """What may be wrong, though the work goes on."""
    LOG.warning("%s", printable(text, lines=True), stacklevel=2)


def advance(log: logging.Logger, bar: Bar, **fields: object) -> None:
    """How far something is now."""
    if log.isEnabledFor(logging.DEBUG):
        text = printable(f"{bar.what}: {bar.done:,} of {bar.total:,}  {bar.figures}".rstrip())
        extra = {"bar": bar, "fields": {"done": bar.done, "total": bar.total, **fields}}
        log.debug("%s", text, extra=extra, stacklevel=2)


def counted(things: Iterable[_T], what: str, total: int) -> Iterator[_T]:
    """The same things. What takes more than 2 s has a bar with their rate and the time that is
    left, and for who sees none a line every 10 s."""
    began = moved = said = time.monotonic()
    seen, done = False, 0
    try:
        for thing in things:
            now = time.monotonic()
            if now - began > _SOON and now - moved > _MOVE and not _by_another:
                moved, seen = now, True
                rate = done / (now - began)
                left = f"{(total - done) / rate:,.0f} s left" if rate else ""
                bar = Bar(what, done, total, f"{rate:,.1f} a second", left)
                advance(LOG, bar)
                if now - said > _LINE:
                    said = now
                    text = f"{what}: {done:,} of {total:,}  {bar.figures}  {left}".rstrip()
                    say(LOG, text, for_bar=True, what=what, done=done, total=total, rate=rate)
            yield thing
            done += 1
    finally:
        if seen:
            advance(LOG, Bar(what, done, total, over=True))
