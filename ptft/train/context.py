"""A run that is under way: what its steps, and what goes on between them, work on."""

from dataclasses import dataclass
from pathlib import Path

from ptft.distributed import World
from ptft.recipe import Recipe
from ptft.report.console import Report
from ptft.runs.folder import RunRecord
from ptft.runs.mirror import Mirror
from ptft.train.observer import Observer
from ptft.train.setup import Setup
from ptft.train.state.train_state import TrainState

__all__ = ["RunContext"]


@dataclass(frozen=True)
class RunContext:
    """The parts of a run; which they are does not change while it goes on.

    Attributes:
        recipe: with the precision that was chosen.
        folder: where the run lies.
        setup: the data, and what its model began with.
        state: what the steps change.
        record: ``run.json``.
        report: the bar, the log, the trackers and the page.
        observer: who is shown the model on the way.
        mirror: of the run or of its sequence, on the first rank of a run that has one.
    """

    recipe: Recipe
    folder: Path
    setup: Setup
    state: TrainState
    record: RunRecord
    report: Report
    observer: Observer | None = None
    mirror: Mirror | None = None

    @property
    def world(self) -> World:
        """The ranks that train."""
        return self.state.world

    @property
    def steps(self) -> int:
        """Of the whole run."""
        return -(-self.record.total // self.recipe.optim.global_batch)
