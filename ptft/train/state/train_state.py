"""All that a step of training changes, as one: what a checkpoint saves and restores."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import torch
from torch import Tensor

from ptft.checkpoint import Background, TrainProgress, prune_checkpoints, resume_checkpoint
from ptft.data.reading.batch import Skipped
from ptft.data.reading.faults import Tally
from ptft.distributed import World
from ptft.model import DualEncoder, layer_depths
from ptft.optim import build_optimizer
from ptft.recipe import Recipe
from ptft.train.device import uncompiled
from ptft.train.gradients import loss_scaler
from ptft.train.guard import Guard, GuardState
from ptft.train.parallel import Parallel, share
from ptft.train.setup import Setup
from ptft.train.state.best import Best, BestState, keep_best
from ptft.train.state.ema import Ema
from ptft.train.state.regularise import Pull, pull_to_start
from ptft.train.state.weight_copy import WeightCopy, extra_tensors

__all__ = ["TrainState", "initial_state"]


@dataclass
class TrainState:
    """What learns and all that is remembered between steps.

    Attributes:
        parallel: the model, alone or among ranks.
        optimizer: of what learns.
        scaler: of the loss (fp16).
        guard: what watches the loss.
        ema: the average of the weights, where the recipe keeps one.
        pull: towards the weights of the start, which are made anew and not saved.
        best: the best validated weights, where the recipe keeps them.
        progress: how far the run has come.
        saved: samples seen at the newest checkpoint; -1 before the first.
        background: writes checkpoints.
    """

    parallel: Parallel
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    guard: Guard
    ema: Ema | None = None
    pull: Pull | None = None
    best: Best | None = None
    progress: TrainProgress = field(default_factory=TrainProgress)
    saved: int = -1
    background: Background = field(default_factory=Background)

    @property
    def model(self) -> DualEncoder:
        """What is updated and saved."""
        return self.parallel.model

    @property
    def world(self) -> World:
        """The ranks that train."""
        return self.parallel.world

    @property
    def learning(self) -> list[Tensor]:
        """The parameters that the optimiser updates."""
        return [p for group in self.optimizer.param_groups for p in group["params"]]

    @property
    def over(self) -> bool:
        """Whether going on is of no more use."""
        return self.best is not None and self.best.over

    def advance(self, samples: int) -> None:
        """Count an update of the weights by ``samples`` samples, and average them."""
        self.progress.step += 1
        self.progress.seen += samples
        if self.ema is not None:
            self.ema.update(self.progress.step)

    def count_skipped(self, skipped: Skipped) -> Tally:
        """Add samples that could not be read; all of them so far."""
        tally = Tally.restore(self.progress.faults)
        tally.add(skipped)
        self.progress.skipped, self.progress.faults = tally.total, tally.state()
        return tally

    def save(self, folder: Path, *, beside: bool) -> None:
        """Begin a checkpoint, to be waited for by :meth:`saved_one`; every rank calls it.

        Args:
            folder: the run's ``checkpoints``.
            beside: the steps go on meanwhile, and change what is saved: it is copied first.

        Raises:
            CheckpointError: (on every rank) it cannot be begun.
        """
        progress = self.progress
        progress.scaler = self.scaler.state_dict()
        progress.guard = dict(self.guard.state)
        progress.best = {} if self.best is None else dict(self.best.state)
        extra = extra_tensors(self.ema, self.best)
        self.background.begin(folder, self.model, self.optimizer, progress, extra, copied=beside)

    def prepare_saving(self) -> None:
        """Take the memory that :meth:`save` copies to, beside the steps."""
        extra = extra_tensors(self.ema, self.best)
        self.background.prepare(self.model, self.optimizer, extra)

    def saved_one(self, folder: Path, *, keep: int) -> TrainProgress | None:
        """Wait for the checkpoint that is being written, and delete all but the newest ``keep``;
        every rank calls it.

        Returns:
            Where the run stood at it; None: none is being written.

        Raises:
            CheckpointError: (on every rank) it cannot be written.
        """
        progress = self.background.finish()
        if progress is not None:
            if self.world.first:
                prune_checkpoints(folder, keep, progress.step)
            self.saved = progress.seen
        return progress

    def restore(self, folder: Path, *, say: Callable[[str], None]) -> None:
        """Go on from the newest checkpoint that is whole, if there is one; every rank calls it.

        Args:
            folder: the run's ``checkpoints``.
            say: takes a line about each that is not whole.

        Raises:
            CheckpointError: one that is whole fits another model.
        """
        extra = extra_tensors(self.ema, self.best)
        progress = resume_checkpoint(
            folder, self.model, self.optimizer, extra, world=self.world, say=say
        )
        self.progress = progress
        self.guard.state = cast(GuardState, progress.guard)
        if self.best is not None:
            self.best.state = cast(BestState, progress.best)
        if progress.scaler:
            self.scaler.load_state_dict(progress.scaler)
        self.saved = progress.seen if progress.step else -1

    @contextmanager
    def whole(self, *, ended: bool = False) -> Iterator[DualEncoder | None]:
        """The model to evaluate or to save, whole and not compiled, on the first rank; None on the
        others, which wait for it. Afterwards it is in training mode.

        It has its averaged weights, where the recipe keeps an average; where it keeps the best
        ones, it has these when the run has ``ended``.
        """
        copy: WeightCopy | None = self.best if ended and self.best is not None else self.ema
        applied = nullcontext() if copy is None else copy.applied()
        with applied, uncompiled(self.model), self.parallel.whole() as model:
            yield model
        self.model.train()


def initial_state(recipe: Recipe, setup: Setup, world: World, total: int) -> TrainState:
    """The state before the first step of ``total`` samples; a checkpoint may be restored into it.

    Raises:
        RecipeError: the ranks, the optimiser or the pull do not fit what learns.
    """
    depths = layer_depths(setup.model) if recipe.optim.layer_decay is not None else None
    parallel = share(setup.model, world, recipe.run.parallel)
    optimizer: torch.optim.Optimizer = torch.optim.SGD([{"params": []}])  # that never steps
    if setup.steps:
        optimizer = build_optimizer(setup.model, recipe.optim, depths=depths)
    stops = setup.steps and recipe.stops_early is not None
    return TrainState(
        parallel,
        optimizer,
        loss_scaler(recipe.optim.precision, setup.model.device),
        Guard(recipe.optim.stop_above),
        ema=None if recipe.optim.ema is None else Ema(setup.model, recipe.optim.ema),
        pull=None if recipe.regularise is None else pull_to_start(recipe, setup),
        best=keep_best(recipe, setup.model, total) if stops else None,
        background=Background(world),
    )
