"""One process's share of a comparison: it claims jobs, runs them, and waits for those of others."""

import logging
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ptft.compare.board import Board
from ptft.compare.claims import Claims
from ptft.compare.keys import CellKey
from ptft.compare.processes import Processes
from ptft.compare.results import MIXED, cell_name
from ptft.errors import ModelError, TrainingError
from ptft.recipe import ArmSection, Comparison
from ptft.recipe.comparison import BUILT, can_be_base
from ptft.speech import say
from ptft.train.part import Stop

__all__ = ["ArmJob", "Shared", "work"]

_REACTS = 0.5  # seconds in which a signal is heard


@dataclass(frozen=True)
class ArmJob:
    """One arm at one budget: what is claimed, since its seeds learn as its trials chose.

    Attributes:
        key: of its cells.
        seconds: estimated; 0 until then.
    """

    arm: ArmSection
    budget: int
    key: CellKey
    seconds: float = 0.0

    @property
    def name(self) -> str:
        """As it is claimed."""
        return f"{self.arm.label}_{self.budget}.{self.key.name}"

    def left(self, seeds: int, done: Collection[str]) -> float:
        """The share of its trainings that is not done, in a comparison that has grown: of the
        first seed there is one for each trial."""
        names = self.cells(seeds)
        missing = sum(name not in done for name in names)
        searches = 0 if names[0] in done else self.key.trials - 1
        return (missing + searches) / (seeds + self.key.trials - 1)

    def cells(self, seeds: int, *, mixed: bool = False) -> list[str]:
        """Names of its cells, or of those of its mixes with the start."""
        label = f"{self.arm.label}{MIXED}" if mixed else self.arm.label
        return [cell_name(label, self.budget, seed, self.key) for seed in range(seeds)]


@dataclass(frozen=True)
class Shared:
    """What the processes of a comparison share, and what this one has of it.

    Attributes:
        board: the cells of all.
        claims: who does which job.
        log: of what this one says.
    """

    board: Board
    claims: Claims
    log: logging.Logger


def work(
    comparison: Comparison,
    jobs: Sequence[ArmJob],
    shared: Shared,
    stop: Stop,
    *,
    deadline: float | None,
) -> None:
    """Run the jobs that nobody else holds, until all are finished, whoever did it.

    Smallest budgets come first, so that a report after little time has whole rows; within one the
    longest jobs, so that no process is left with one in the end.

    Args:
        deadline: by ``time.monotonic``, after which nothing is begun.

    Raises:
        TrainingError, ModelError: a job's, which is named.
        MirrorError: the shared place does not answer.
    """
    with Processes() as processes:
        _Work(comparison, jobs, shared, processes).run(stop, deadline)


class _Work:
    def __init__(
        self, comparison: Comparison, jobs: Sequence[ArmJob], shared: Shared, processes: Processes
    ) -> None:
        self._comparison, self._processes = comparison, processes
        self._board, self._claims = shared.board, shared.claims
        self._log = shared.log
        self._left = {
            job.name: job for job in sorted(jobs, key=lambda job: (job.budget, -job.seconds))
        }
        self._newest: Mapping[str, int] = {}
        self._began, self._whole = time.monotonic(), sum(job.seconds for job in jobs)
        self._waits = False

    def run(self, stop: Stop, deadline: float | None) -> None:
        while not stop.asked():
            self._look()
            late = deadline is not None and time.monotonic() > deadline
            if not late:
                self._begin()
            if not self._processes and (late or not self._left):
                return
            until = time.monotonic() + self._board.poll
            while time.monotonic() < until and not stop.asked() and self._left:
                ended = self._processes.ended(min(_REACTS, self._board.poll))
                if ended:
                    self._finish(ended)
                    break

    def _look(self) -> None:
        """See what others finished and took over, and give what was finished here."""
        mine = self._processes.jobs
        newest = self._board.patiently(self._claims.newest)
        for name in self._claims.lost(newest) & set(mine):
            say(self._log, f"{name}: another worker took it over, which held this one for dead")
            self._processes.kill(name)
            mine.remove(name)
        self._give(mine)
        done = self._board.bring_cells()
        seeds = self._comparison.compare.seeds
        for name in [name for name in self._left if name not in mine]:
            if done.issuperset(self._left[name].cells(seeds)):
                job = self._left.pop(name)
                say(self._log, f"{job.arm.label} at {job.budget}: done by another; {self._far()}")
        self._newest = newest

    def _begin(self) -> None:
        """Begin as many jobs as there is room for, of those that nobody holds."""
        section = self._comparison.compare
        for name, job in self._left.items():
            if len(self._processes) >= section.jobs:
                return
            if name in self._processes or self._waits_for(job) or not self._take(name):
                continue
            values = self._comparison.model_dump(mode="json", by_alias=True)
            own = f"{name}.{self._claims.worker}"
            arm = section.arms.index(job.arm)
            self._processes.start(name, _task, values, arm, job.budget, self._board.folder, own)
        if self._left and not self._processes and not self._waits:
            self._waits = True
            say(self._log, f"all that is left is being done by others; {self._far()}")

    def _waits_for(self, job: ArmJob) -> bool:
        """Whether it builds on one of several arms that are not all finished."""
        return job.arm.kind in BUILT and any(
            other.budget == job.budget and can_be_base(other.arm.kind)
            for other in self._left.values()
        )

    def _take(self, name: str) -> bool:
        return self._board.patiently(lambda: self._claims.take(name, self._newest))

    def _finish(self, ended: Mapping[str, Exception | None]) -> None:
        for name, error in ended.items():
            job = self._left[name]
            self._give([name])
            if error is not None:
                done = self._board.bring_cells()
                if not done.issuperset(job.cells(self._comparison.compare.seeds)):
                    raise error
            del self._left[name]
            say(self._log, f"{job.arm.label} at {job.budget}: done; {self._far()}")

    def _give(self, names: Iterable[str]) -> None:
        """Put the cells of jobs into the shared place; the mix of each before the cell itself,
        which says that both are there."""
        seeds = self._comparison.compare.seeds
        for name in names:
            job = self._left[name]
            self._board.give_cells([*job.cells(seeds, mixed=True), *job.cells(seeds)])

    def _far(self) -> str:
        """How far the comparison is, in words: what the finished jobs took, against what was
        estimated of them, says how long the others will."""
        left = sum(job.seconds for job in self._left.values())
        done = self._whole - left
        rest = (time.monotonic() - self._began) * left / done if done > 0 else 0.0
        share = done / self._whole if self._whole else 1.0
        return f"{share:.0%}, about {rest / 60:.1f} minutes to go"


def _task(values: dict[str, Any], arm: int, budget: int, folder: Path, name: str) -> None:
    """Run a task in the process that this is called in."""
    from ptft.compare.task import Task
    from ptft.data import kept_open
    from ptft.evaluate.ranks import scores_within

    comparison = Comparison.model_validate(values)
    section = comparison.compare.arms[arm]
    try:
        with kept_open(), scores_within(comparison.run.evaluate_mb):
            Task(comparison, section, budget, folder, name=name).run()
    except (TrainingError, ModelError) as error:
        raise type(error)(f"{section.label} at {budget}: {error}") from error
