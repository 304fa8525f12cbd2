"""A run that is under way: what its steps, and what goes on between them, work on; and what whoever
started it may see of its model on the way, and give it up."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ptft.distributed import World
from ptft.model import DualEncoder
from ptft.recipe import Recipe
from ptft.report.console import Report
from ptft.runs.folder import RunRecord
from ptft.runs.mirror import Mirror
from ptft.train.setup import Setup
from ptft.train.state.train_state import TrainState

__all__ = ["Observer", "RunContext"]


@dataclass(frozen=True)
class Observer:
    """Shows the model, as it would be saved then, at shares of a run's steps; for one process.

    Attributes:
        shares: between 0 and 1, exclusive; each is due after the first step that reaches it. The
            model is not shown before the first step or after the last.
        observe: gets the model and the number of the share, and may raise to end the run; what it
            raises comes out of ``train``. It leaves the model as it was, but for its mode.
    """

    shares: Sequence[float]
    observe: Callable[[DualEncoder, int], None]

    def number(self, step: int, steps: int) -> int | None:
        """Of the share that is due after ``step`` of ``steps``, the last one if there are more."""
        due = [n for n, share in enumerate(self.shares) if math.ceil(share * steps) == step]
        return due[-1] if due and step < steps else None


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
