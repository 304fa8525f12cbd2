"""What a run says while it goes: a progress bar, a log of figures, trackers, its page."""

import contextlib
import json
import logging
import os
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from ptft.artifact import RunFiles, write_atomic
from ptft.checkpoint import TrainProgress
from ptft.data.reading.batch import Skipped
from ptft.errors import PtftError
from ptft.evaluate import Figures
from ptft.files.own import open_own
from ptft.recipe import Recipe
from ptft.report.charts import figure_text, plot_curves
from ptft.report.curves import looked_at
from ptft.report.page.page import write_page
from ptft.report.throughput import TrainingClock, duration
from ptft.report.trackers import Tracker, open_trackers
from ptft.runs.folder import RunRecord, RunStatus, write_run
from ptft.speech import Bar, advance, say

__all__ = ["LINE_EVERY", "Mute", "Report"]

_SHOWN = {
    "loss": "loss",
    "accuracy": "accuracy",
    "grad_norm": "grad norm",
    "logit_scale": "logit scale",
    "samples_per_second": "samples/s",
}
LINE_EVERY = 10.0  # seconds between lines where no bar can be drawn
_PAGE_SHARE = 0.01  # of a run's time that writing its page may take


class Report:
    """Shows progress, and logs figures in ``metrics.jsonl`` and the recipe's trackers.

    Args:
        folder: the run's.
        record: of the run, which runs from here on; its notes begin anew with each part of a run.
        progress: where the run stands (a resumed one, at its checkpoint); later lines of the log
            are dropped.

    Attributes:
        clock: the clock of training; what is no training pauses it.
        tracker_state: what the trackers need to go on in the same runs next time.
    """

    def __init__(
        self,
        folder: Path,
        recipe: Recipe,
        record: RunRecord,
        progress: TrainProgress,
        *,
        log: logging.Logger,
    ) -> None:
        self._log = folder / RunFiles.LOG
        self._skipped = folder / RunFiles.SKIPPED
        self._drop_after(progress.seen)
        self._logger = log
        self._folder = folder
        self._record = record
        record.status, record.error, record.notes = RunStatus.RUNNING, "", []
        self._page_wanted = recipe.run.page
        self._page_due = 0.0
        self._page_failed = False
        self._bar = Bar(recipe.name, progress.seen, record.total)
        self._plain = time.monotonic()
        self.tracker_state = dict(progress.trackers)
        self._said: set[str] = set()
        self._trackers: list[Tracker] = open_trackers(
            folder, recipe, step=progress.step, state=self.tracker_state
        )
        self.clock = _clock(record, progress)

    def __enter__(self) -> Self:
        advance(self._logger, self._bar)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        advance(self._logger, replace(self._bar, over=True))
        if error is not None:
            self._failed(error)
        for tracker in self._trackers:
            tracker.close()

    def note(self, text: str) -> None:
        """State a fact about how this part of the run works, in one line: here and on its page."""
        self._record.notes.append(text)
        self.message(f"  {text}")

    def step(self, seen: int, figures: Mapping[str, float]) -> None:
        """Move the bar; where nobody sees one, a line every ten seconds."""
        shown = "  ".join(
            f"{text} {figure_text(False, figures[name])}"
            for name, text in _SHOWN.items()
            if name in figures
        )
        left = "" if self.clock.left is None else f"{duration(self.clock.left)} left"
        self._bar = replace(self._bar, done=seen, figures=shown, left=left)
        advance(self._logger, self._bar, **figures)
        if time.monotonic() - self._plain > LINE_EVERY:
            self._plain = time.monotonic()
            total = self._record.total
            text = f"{seen:,}/{total:,} samples  {shown}  {left}"
            say(self._logger, text, for_bar=True, seen=seen, total=total, **figures)

    def log(self, step: int, seen: int, figures: Mapping[str, float]) -> None:
        """Write figures to the log and the trackers."""
        self._append(self._log, {"step": step, "seen": seen, **figures})
        for tracker in self._trackers:
            tracker.log(figures, step)

    def evaluated(self, progress: TrainProgress, when: str, metrics: Mapping[str, Figures]) -> None:
        """Log what evaluations measured, by their names, and say what people look at first."""
        flat = {
            f"{name}/{key}": value
            for name, figures in metrics.items()
            for key, value in figures.items()
            if isinstance(value, int | float)
        }
        self.log(progress.step, progress.seen, flat)
        for name, figures in metrics.items():
            shown = [f"{key} {value:.1%}" for key, value in figures.items() if looked_at(key)]
            text = f"{name} {when}: {', '.join(shown)}"
            say(self._logger, text, evaluation=name, when=when, figures=dict(figures))
        self.page()

    def skipped(self, seen: int, samples: Skipped) -> None:
        """Record samples that could not be read, name, reason and fault, and when that was."""
        for skip in samples:
            self._append(self._skipped, {"seen": seen, **skip._asdict()})

    def page(self, *, last: bool = False) -> None:
        """Write the run's page anew, unless that would take more than its share of time or the
        recipe wants none.

        It is for people: where it cannot be written, that is said once and the run goes on.

        Args:
            last: write it whatever it takes, and the curves, and say where it lies.
        """
        begin = time.monotonic()
        if not self._page_wanted or (begin < self._page_due and not last):
            return
        try:
            if last:
                plot_curves(self._folder)
            path = write_page(self._folder, left=self.clock.left)
            if last:
                self.message(f"page: {path}")
        except Exception as error:
            if not self._page_failed:
                self.message(f"{RunFiles.PAGE}: not written: {type(error).__name__}: {error}")
            self._page_failed = True
        end = time.monotonic()
        self._page_due = end + (end - begin) / _PAGE_SHARE

    def message(self, text: str) -> None:
        """Say a line, above the bar where there is one."""
        say(self._logger, text)

    def message_once(self, text: str) -> None:
        """An indented line, unless it was said before."""
        if text not in self._said:
            self._said.add(text)
            self.message(f"  {text}")

    def _failed(self, error: BaseException) -> None:
        """Leave word of an error that ends the run; where the disk is full, there is no place."""
        record = self._record
        name = "" if isinstance(error, PtftError) else f"{type(error).__name__}: "
        record.status, record.error = RunStatus.FAILED, f"{name}{error}"
        with contextlib.suppress(OSError):
            write_run(self._folder, record)
        self.page(last=True)

    @staticmethod
    def _append(path: Path, values: Mapping[str, Any]) -> None:
        file = open_own(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        with os.fdopen(file, "a", encoding="utf-8") as stream:
            stream.write(json.dumps(values) + "\n")

    def _drop_after(self, seen: int) -> None:
        """Forget what a killed run logged beyond the checkpoint it goes on from."""
        for path in (self._log, self._skipped):
            if not path.is_file():
                continue
            kept = []
            for line in path.read_text(encoding="utf-8").splitlines():
                try:
                    if json.loads(line).get("seen", 0) <= seen:
                        kept.append(line)
                except ValueError:
                    continue  # a line that the kill cut
            write_atomic(path, "".join(f"{line}\n" for line in kept))


class Mute(Report):
    """The report of a rank that is not the first: only its clock runs."""

    def __init__(self, record: RunRecord, progress: TrainProgress) -> None:
        self._record = record
        self.tracker_state = dict(progress.trackers)
        self.clock = _clock(record, progress)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def step(self, seen: int, figures: Mapping[str, float]) -> None:
        pass

    def log(self, step: int, seen: int, figures: Mapping[str, float]) -> None:
        pass

    def evaluated(self, progress: TrainProgress, when: str, metrics: Mapping[str, Figures]) -> None:
        pass

    def skipped(self, seen: int, samples: Skipped) -> None:
        pass

    def page(self, *, last: bool = False) -> None:
        pass

    def message(self, text: str) -> None:
        pass


def _clock(record: RunRecord, progress: TrainProgress) -> TrainingClock:
    return TrainingClock(seen=progress.seen, total=record.total, seconds=progress.seconds)
