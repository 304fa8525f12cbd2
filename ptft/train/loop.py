"""The steps of a run: batch, gradients, agreement among ranks, guard, update, clamp, record.

On a GPU the host asks for a step and goes on; what came of it is read later, that of several steps
at once (:mod:`ptft.train.readings`). Of those steps the guard sees each, in order, and nothing of
their weights leaves the process before it has.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ptft.data import Batch
from ptft.data.hashing import hash_integers
from ptft.data.reading.batch import Skipped
from ptft.objective import clamp_logit_scale
from ptft.optim import Lbfgs, learning_rate_factor, set_learning_rate
from ptft.train.batches import batches
from ptft.train.between import after_step, leave, must_read, note_skipped
from ptft.train.context import RunContext
from ptft.train.evaluations import validate_if_due
from ptft.train.gradients import Step
from ptft.train.guard import describe_batch, stop_run
from ptft.train.parallel import whole_tensor
from ptft.train.part import Stop
from ptft.train.readings import Readings

__all__ = ["train_steps"]

_LOSS_SCALE = "loss_scale"  # among the figures of a step in fp16; for the guard alone


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
    readings = Readings(run.world)
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
            if _take(run, step, batch, stop, readings):
                break
    finally:
        leave(run)
    assert state.saved == state.progress.seen, "a run ends on a checkpoint"
    note_skipped(run)


def _take(run: RunContext, step: Step, batch: Batch, stop: Stop, readings: Readings) -> bool:
    """A step, and all that belongs after it; whether the run ends with it."""
    state, objective, optim = run.state, run.recipe.objective, run.recipe.optim
    factor = learning_rate_factor(optim, state.progress.seen, run.record.total)
    set_learning_rate(state.optimizer.param_groups, factor)
    found = _gradients(run, step, batch)
    agreed = _agree(batch, stop, run)
    found["grad_norm"] = _clip(run, optim.clip_grad_norm)
    first = state.progress.seen + run.world.rank * len(batch.names)
    readings.take(state.progress.step + 1, first, batch, found)
    if readings.full or must_read(run, stopping=agreed.stopping):
        _read(run, readings)
        readings.newest["lr"] = optim.lr * factor
    _update(run, step, batch, found)
    clamp_logit_scale(objective, state.model)
    state.advance(optim.global_batch)
    return after_step(
        run, readings.newest, agreed.skipped, stopping=agreed.stopping, written=agreed.written
    )


def _gradients(run: RunContext, step: Step, batch: Batch) -> dict[str, Tensor]:
    """Put the gradients of a batch on the weights; this rank's figures, the loss among them, 0-d
    each on the device."""
    state = run.state
    state.optimizer.zero_grad(set_to_none=True)
    # dropout is a function of the samples seen, too: nothing of it has to be saved
    torch.manual_seed(hash_integers(run.recipe.seed, state.progress.seen, run.world.rank))
    output = step(batch)
    state.scaler.unscale_(state.optimizer)
    figures = {"loss": output.loss, **output.scalars}
    if state.scaler.is_enabled():
        figures[_LOSS_SCALE] = state.scaler.scale(torch.ones_like(output.loss))
    if state.pull is not None:
        figures["pull"] = state.pull.add_gradients(run.world)
    return figures


@dataclass(frozen=True)
class _Agreed:
    """What all ranks say of a step.

    Attributes:
        stopping: whether one of them was asked to stop; each then knows why.
        written: whether a checkpoint was begun that no rank writes any more.
        skipped: samples that could not be read.
    """

    stopping: bool
    written: bool
    skipped: Skipped


def _agree(batch: Batch, stop: Stop, run: RunContext) -> _Agreed:
    """Make one of what the ranks have to say, in one message from host to host."""
    world, writer = run.world, run.state.background
    asked = {
        "stop": float(stop.asked()),
        "skipped": float(len(batch.skipped)),
        "writing": float(writer.busy),
    }
    said = world.mean(asked)
    stopping, skips = said["stop"] > 0, said["skipped"] > 0
    written = said["writing"] == 0.0 and writer.pending
    parts = world.gather_objects(batch.skipped) if skips else []
    if stopping:
        stop.agree(world)
    return _Agreed(stopping, written, [skip for part in parts for skip in part])


def _clip(run: RunContext, limit: float | None) -> Tensor:
    """Scale the gradients to a norm of ``limit`` at most, if there is one; the norm before that."""
    norm = torch.nn.utils.clip_grad_norm_(run.state.learning, math.inf if limit is None else limit)
    return whole_tensor(norm)


def _read(run: RunContext, readings: Readings) -> None:
    """Read the steps that were not read before; stop the run where the loss or the gradient of one
    tells that it goes wrong."""
    guard = run.state.guard
    for one in readings.read():
        scale, loss = one.figures.pop(_LOSS_SCALE, 1.0), one.figures["loss"]
        reason = guard.check(one.step, loss, one.figures["grad_norm"], loss_scale=scale)
        if reason is not None:
            samples = describe_batch(one.batch, one.first, run.setup)
            raise stop_run(reason, guard, samples, run.folder, run.world)


def _update(run: RunContext, step: Step, batch: Batch, figures: dict[str, Tensor]) -> None:
    """Update the weights by the gradients on them; a line search runs the batch again."""
    state = run.state
    if isinstance(state.optimizer, Lbfgs):
        state.optimizer.search(
            _minimised(figures), lambda: _minimised(_gradients(run, step, batch))
        )
        return
    state.scaler.step(state.optimizer)
    state.scaler.update()


def _minimised(figures: dict[str, Tensor]) -> float:
    """What the gradients are of; a line search asks for it wherever it puts the weights."""
    return figures["loss"].item() + (figures["pull"].item() if "pull" in figures else 0.0)
