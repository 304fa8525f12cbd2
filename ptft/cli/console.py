"""What people see of a command on stderr: lines, tables, bars. Results are on stdout."""

import threading
import time
from collections.abc import Iterator
from typing import Any, Self

from rich.console import Console, RenderableType
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
)
from rich.text import Text

from ptft.cli.speech import stderr
from ptft.printable import printable
from ptft.speech import LOG, Bar, say, tell

__all__ = ["PlainConsole", "Steps", "TrainingBar"]

_EVERY = 30.0  # seconds between lines about one step, where no bar can be drawn


class PlainConsole(Console):
    """The terminal on stderr: texts are shown as they are, in tables and status lines too.

    Nothing in them is markup, and what would steer the terminal is written out
    (:func:`ptft.printable.printable`): names of classes, samples and files are anybody's.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"stderr": True, "markup": False, "highlight": False, **options})

    def render_str(self, text: str, **options: Any) -> Text:
        """Every text that rich is given as a ``str`` comes through here."""
        return super().render_str(printable(text, lines=True), **options)


class TrainingBar(Progress):
    """A bar with its figures on a line of their own, since both do not fit into 80 columns."""

    def __init__(self, console: Console) -> None:
        super().__init__(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[left]}", markup=False),
            console=console,
            refresh_per_second=4,
        )

    def show(self, bar: Bar) -> None:
        """Where it stands now; what goes on within it has a bar of its own, while it does."""
        known = {task.fields["what"]: task.id for task in self.tasks}
        if bar.what not in known:
            known[bar.what] = self.add_task(
                printable(bar.what), total=bar.total, what=bar.what, figures="", left=""
            )
        self.update(known[bar.what], completed=bar.done, figures=bar.figures, left=bar.left)
        if bar.over and len(known) > 1:
            self.remove_task(known[bar.what])

    def get_renderables(self) -> Iterator[RenderableType]:
        yield self.make_tasks_table(self.tasks)
        for task in self.tasks:
            yield Text(task.fields["figures"], no_wrap=True, overflow="ellipsis")


class Steps:
    """The steps of a verb, one after another: called with each one's name as it begins.

    On a terminal the step that runs has a spinner and its time below the lines of those before, and
    a bar where its parts are counted. Elsewhere it has a line twice a minute.

    Args:
        console: that the lines appear on as well; absent: stderr as the options have it.
        bar: False where something else draws bars meanwhile: lines alone.
    """

    def __init__(self, console: Console | None = None, *, bar: bool = True) -> None:
        self._console = console or stderr()
        self._live = self._console.is_terminal and bar and not self._console.quiet
        self._step = ""
        self._what = ""
        self._done, self._total = 0, 0
        self._began = time.monotonic()
        self._over = threading.Event()
        self._bar = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=self._console,
            transient=True,
        )

    def __enter__(self) -> Self:
        if self._live:
            self._bar.start()
        else:
            threading.Thread(target=self._remind, daemon=True).start()
        return self

    def __exit__(self, *raised: object) -> None:
        self._over.set()
        if self._live:
            self._bar.stop()

    def __call__(self, text: str) -> None:
        """A step begins; the one before is over."""
        tell(text)
        self._begin(text, "", 0)

    def count(self, what: str, done: int, total: int) -> None:
        """So many parts of the step are done: ``what`` names them (``val images``)."""
        if what != self._what:
            if not self._live:
                say(LOG, f"{total:,} {what}", total=total, what=what)
            self._begin(self._step, what, total)
        self._done = done
        for task in self._bar.task_ids:
            self._bar.update(task, completed=done)

    def remind(self) -> None:
        """A line about the step that runs."""
        seconds = time.monotonic() - self._began
        parts = f"{self._done:,} of {self._total:,} {self._what}, " if self._what else ""
        named = f"{self._step}: " if self._step else ""
        done: dict[str, Any] = {"done": self._done, "total": self._total} if self._what else {}
        say(LOG, f"{named}{parts}{seconds:.0f} s so far", seconds=round(seconds, 1), **done)

    def _begin(self, step: str, what: str, total: int) -> None:
        self._step, self._what, self._done, self._total = step, what, 0, total
        self._began = time.monotonic()
        for task in self._bar.task_ids:
            self._bar.remove_task(task)
        self._bar.add_task(printable(what or step), total=total or None)

    def _remind(self) -> None:
        while not self._over.wait(_EVERY):
            if self._step or self._what:
                self.remind()
