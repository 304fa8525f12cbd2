"""The steps of a run: batch, gradients, agreement among ranks, guard, update, clamp, record."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch

from ptft.data import Batch
from ptft.data.hashing import hash_integers
from ptft.data.reading.batch import Skipped
from ptft.objective import clamp_logit_scale
from ptft.optim import Lbfgs, learning_rate_factor, set_learning_rate
from ptft.train.batches import batches
from ptft.train.between import after_step, leave, note_skipped
from ptft.train.context import RunContext
from ptft.train.evaluations import validate_if_due
from ptft.train.gradients import Step
from ptft.train.guard import describe_batch, stop_run
from ptft.train.parallel import whole_tensor
from ptft.train.part import Stop

__all__ = ["train_steps"]


def train_steps(run: RunContext, stop: Stop) -> None:
    """Step until all samples are seen, more is of no use or a signal comes; end on a
    checkpoint.

    Raises:
        DataError: too many samples cannot be read.
        TrainingError: the loss or a gradient is not finite, or the loss explodes.
        CheckpointError: a checkpoint cannot be written.
    """
    recipe, state, setup = run.recipe, run.state, run.setup
    objective, optim, total = recipe.objective, recipe.optim, run.record.total
    validate_if_due(run)
    if state.over:  # resumed after its last step
        return
    step = Step(
        objective,
        optim,
        state.parallel,
        scaler=state.scaler,
        teacher=setup.teacher,
        class_weights=setup.class_weights,
    )
    state.model.train()
    if stop.deadline is not None:
        stop.deadline.saving = state.background.expected_seconds
    try:
        for batch in batches(
            recipe,
            setup,
            start=state.progress.seen,
            end=total,
            size=optim.global_batch,
            workers=recipe.run.workers,
            world=run.world,
            order=run.record.order,
        ):
            if _take(run, step, batch, stop):
                break
    finally:
        leave(run)
    assert state.saved == state.progress.seen, "a run ends on a checkpoint"
    note_skipped(run)


def _take(run: RunContext, step: Step, batch: Batch, stop: Stop) -> bool:
    """A step, and all that belongs after it; whether the run ends with it."""
    state, objective, optim = run.state, run.recipe.objective, run.recipe.optim
    factor = learning_rate_factor(optim, state.progress.seen, run.record.total)
    set_learning_rate(state.optimizer.param_groups, factor)
    agreed = _agree(_gradients(run, step, batch), batch, stop, run)
    agreed.figures["lr"] = optim.lr * factor
    agreed.figures["grad_norm"] = _clip(run, optim.clip_grad_norm)
    _guard(run, agreed.figures, batch)
    _update(run, step, batch, agreed.figures)
    clamp_logit_scale(objective, state.model)
    state.advance(optim.global_batch)
    return after_step(
        run, agreed.figures, agreed.skipped, stopping=agreed.stopping, written=agreed.written
    )


def _gradients(run: RunContext, step: Step, batch: Batch) -> dict[str, float]:
    """Put the gradients of a batch on the weights; this rank's figures, the loss among them."""
    state = run.state
    state.optimizer.zero_grad(set_to_none=True)
    # dropout is a function of the samples seen, too: nothing of it has to be saved
    torch.manual_seed(hash_integers(run.recipe.seed, state.progress.seen, run.world.rank))
    output = step(batch)
    state.scaler.unscale_(state.optimizer)
    figures = {"loss": output.loss.item(), **output.scalars}
    if state.pull is not None:
        figures["pull"] = state.pull.add_gradients(run.world)
    return figures


@dataclass(frozen=True)
class _Agreed:
    """What all ranks say of a step.

    Attributes:
        figures: means over the ranks.
        stopping: whether one of them was asked to stop; each then knows why.
        written: whether a checkpoint was begun that no rank writes any more.
        skipped: samples that could not be read.
    """

    figures: dict[str, float]
    stopping: bool
    written: bool
    skipped: Skipped


def _agree(own: Mapping[str, float], batch: Batch, stop: Stop, run: RunContext) -> _Agreed:
    """Make one of what the ranks have to say, in one message."""
    world, writer = run.world, run.state.background
    asked = {
        "stop": float(stop.asked()),
        "skipped": float(len(batch.skipped)),
        "writing": float(writer.busy),
    }
    figures = world.mean({**own, **asked})
    stopping, skips = figures.pop("stop") > 0, figures.pop("skipped") > 0
    written = figures.pop("writing") == 0.0 and writer.pending
    parts = world.gather_objects(batch.skipped) if skips else []
    if stopping:
        stop.agree(world)
    return _Agreed(figures, stopping, written, [skip for part in parts for skip in part])


def _clip(run: RunContext, limit: float | None) -> float:
    """Scale the gradients to a norm of ``limit`` at most, if there is one; the norm before that."""
    norm = torch.nn.utils.clip_grad_norm_(run.state.learning, math.inf if limit is None else limit)
    return float(whole_tensor(norm).item())


def _guard(run: RunContext, figures: Mapping[str, float], batch: Batch) -> None:
    """Stop before the update, where the loss or the gradient tells that the run goes wrong."""
    state = run.state
    reason = state.guard.check(
        state.progress.step + 1,
        figures["loss"],
        figures["grad_norm"],
        loss_scale=state.scaler.get_scale(),
    )
    if reason is not None:
        first = state.progress.seen + run.world.rank * len(batch.names)
        samples = describe_batch(batch, first, run.setup)
        raise stop_run(reason, state.guard, samples, run.folder, run.world)


def _update(run: RunContext, step: Step, batch: Batch, figures: Mapping[str, float]) -> None:
    """Update the weights by the gradients on them; a line search runs the batch again."""
    state = run.state
    if isinstance(state.optimizer, Lbfgs):
        state.optimizer.search(
            _minimised(figures), lambda: _minimised(_gradients(run, step, batch))
        )
        return
    state.scaler.step(state.optimizer)
    state.scaler.update()


def _minimised(figures: Mapping[str, float]) -> float:
    """What the gradients are of."""
    return figures["loss"] + figures.get("pull", 0.0)
