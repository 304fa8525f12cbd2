"""The trials of an arm at a budget, run or known from before: what is chosen for all its seeds."""

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ptft.compare.arms import search_space
from ptft.compare.results import TrialRecord
from ptft.compare.search import GivenUp, Trial, TrialSearch
from ptft.data.hashing import text_id
from ptft.errors import ModelError, TrainingError
from ptft.model import DualEncoder

if TYPE_CHECKING:
    from ptft.compare.task import Task, TrainedArm

__all__ = ["Searched", "TrialWatch", "search_trials"]


class TrialWatch:
    """Measures an unfinished trial on validation, so that a poor one is given up early.

    Attributes:
        cpu, wall: seconds that this took.
        reports: see ``TrialRecord``.
    """

    def __init__(self, task: "Task", trial: Trial) -> None:
        self.cpu = self.wall = 0.0
        self.reports: list[tuple[int, float, float]] = []
        self._task = task
        self._trial = trial

    def __call__(self, model: DualEncoder, number: int) -> None:
        wall, cpu = time.perf_counter(), time.process_time()
        head, spec = model.head, model.spec
        self._task.give_head(model)
        validation = self._task.validation(lambda: model, 0)
        val, short = validation.own.value, validation.short
        model.head, model.spec = head, spec
        self.cpu += time.process_time() - cpu
        self.wall += time.perf_counter() - wall
        self.reports.append((number, val, short))
        self._trial.report(number, val, short_of=short)


@dataclass(frozen=True)
class Searched:
    """What an arm's trials chose, all of them, and the model of the chosen one where it is here."""

    chosen: dict[str, Any]
    trials: list[TrialRecord]
    best: "TrainedArm | None" = None


def search_trials(task: "Task") -> Searched:
    """Find the trial that is best on validation and retains enough. Those that were run for a
    comparison of fewer trials are not run again."""
    section = task.comparison.compare
    search = TrialSearch(
        search_space(task.comparison, task.arm),
        trials=section.trials,
        seed=task.comparison.seed + text_id(f"{task.arm.label} {task.budget}") % 2**31,
    )
    relatives = task.cells.relatives(task.arm.label, task.budget, 0)
    known = relatives[0].trials if relatives else []
    best: tuple[tuple[float, float], TrainedArm | None] | None = None
    records: list[TrialRecord] = []
    for number, trial in enumerate(search):
        trained = None
        if number < len(known):
            record = known[number]
            search.repeat(trial, record)
        else:
            record, trained = _try(task, trial, search)
        records.append(record)
        if record.val is None:
            continue
        # what retains too little comes after all that retain enough, the nearest first
        rank = (-record.short, record.val)
        if best is None or rank > best[0]:
            best, chosen = (rank, trained), record.values
    assert best is not None
    return Searched(chosen, records, best[1])


def _try(
    task: "Task", trial: Trial, search: TrialSearch
) -> "tuple[TrialRecord, TrainedArm | None]":
    """Run a trial; None of one that is given up."""
    watch = TrialWatch(task, trial) if search.trials > 1 else None
    started = time.process_time()
    try:
        trained = task.train(0, trial.values, watch)
        val, short = trained.validation.own.value, trained.validation.short
    except (GivenUp, TrainingError, ModelError):
        if not trial.values:  # the arm as it stands goes wrong
            raise
        search.give_up(trial)
        seconds = round(time.process_time() - started, 2)
        reports = watch.reports if watch else []
        return TrialRecord(trial.values, None, 0.0, reports, seconds), None
    search.tell(trial, val, short_of=short)
    reports = watch.reports if watch else []
    record = TrialRecord(trial.values, val, short, reports, trained.costs.cpu_seconds)
    return record, trained
