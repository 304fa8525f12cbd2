"""What goes on between steps: counting, reporting, validation, checkpoints, evaluations."""

from ptft.artifact import RunFiles
from ptft.data.reading.batch import Skipped
from ptft.data.reading.faults import Tally
from ptft.errors import CheckpointError
from ptft.runs.folder import write_run
from ptft.train.context import RunContext
from ptft.train.evaluations import evaluate_model, validate_if_due

__all__ = ["after_step", "leave", "must_read", "note_skipped"]


def must_read(run: RunContext, *, stopping: bool) -> bool:
    """Whether the figures of the step under way must be known before its update: on a CPU always,
    else where it is logged, or where something is saved, validated or shown after it.

    Args:
        stopping: whether a rank was asked to stop.
    """
    state, settings, best = run.state, run.recipe.run, run.state.best
    step = state.progress.step + 1
    last = state.progress.seen + run.recipe.optim.global_batch >= run.record.total
    every = (settings.log_every, settings.checkpoint_every, settings.evaluate_every)
    return (
        stopping
        or last
        or state.model.device.type == "cpu"
        or any(number and step % number == 0 for number in every)
        or (best is not None and best.is_due(step, last=last))
        or (run.observer is not None and run.observer.number(step, run.steps) is not None)
    )


def after_step(
    run: RunContext,
    figures: dict[str, float],
    skipped: Skipped,
    *,
    stopping: bool,
    written: bool,
) -> bool:
    """All that belongs after an update; whether the run ends with it.

    Args:
        figures: of the newest step whose figures were read, over all ranks; the throughput is
            added. None were read yet: empty.
        skipped: samples that the step could not read.
        stopping: whether a rank was asked to stop.
        written: whether no rank writes a checkpoint any more.

    Raises:
        DataError: too many samples cannot be read.
        CheckpointError: a checkpoint cannot be written.
    """
    state, report, settings = run.state, run.report, run.recipe.run
    progress = state.progress
    _count_skipped(run, skipped)
    figures["samples_per_second"] = report.clock.step(progress.seen)
    progress.seconds = report.clock.seconds
    if not stopping:  # whoever asks to stop waits for the checkpoint alone
        validate_if_due(run)  # before a checkpoint, which the next step goes on from
    last = progress.seen >= run.record.total or state.over
    if last or progress.step % settings.log_every == 0:
        report.log(progress.step, progress.seen, figures)
    report.step(progress.seen, figures)
    if last or stopping or progress.step % settings.checkpoint_every == 0:
        with report.clock.paused():
            _checkpoint(run, last=last or stopping)
    elif written:
        with report.clock.paused():
            _settle(run)
    ends = stopping or state.over
    if not (ends or last):
        _prepare(run)
    if not ends:
        _show(run)
        if settings.evaluate_every and progress.step % settings.evaluate_every == 0 and not last:
            items = [item for item in run.recipe.evaluate if item.split != "test"]
            with report.clock.paused():
                evaluate_model(run, f"at step {progress.step}", items)
    return ends


def note_skipped(run: RunContext) -> None:
    """Leave a line about all that the run skipped, if it skipped anything."""
    progress = run.state.progress
    if progress.skipped:
        run.report.note(Tally.restore(progress.faults).summary(progress.seen))


def _count_skipped(run: RunContext, skipped: Skipped) -> None:
    """Count, record and name what a step skipped. Raises DataError where that is too much."""
    if not skipped:
        return
    before, progress = run.state.progress.skipped, run.state.progress
    tally = run.state.count_skipped(skipped)
    run.report.skipped(progress.seen, skipped)
    if (line := tally.line(skipped[0], before=before, seen=progress.seen)) is not None:
        run.report.message(line)
    share = getattr(run.recipe.data, "max_skipped", 1.0)  # scenes have no such key
    size = min(len(run.setup.samples), run.record.total)
    tally.check(share, seen=progress.seen, size=size)


def _checkpoint(run: RunContext, *, last: bool) -> None:
    """Begin a checkpoint, once the one before is there; of the last step wait for it, too."""
    _settle(run)
    run.state.progress.trackers = dict(run.report.tracker_state)
    run.state.save(run.folder / RunFiles.CHECKPOINTS, beside=not last)
    if last:
        _settle(run)


def _settle(run: RunContext) -> None:
    """Wait for the checkpoint that is being written, if one is; then write the run's record and its
    page, and tell the mirror. Every rank calls it.

    Raises:
        CheckpointError: (on every rank) it cannot be written.
    """
    folder = run.folder / RunFiles.CHECKPOINTS
    progress = run.state.saved_one(folder, keep=run.recipe.run.keep)
    if progress is None:
        return
    if run.world.first:
        run.record.follow(progress)
        write_run(run.folder, run.record)
        run.report.page()
    if run.mirror is not None:
        run.mirror.offer()


def leave(run: RunContext) -> None:
    """Wait for what this rank still writes, as the steps end, be it by an error; of a checkpoint
    that is whole by then the record tells."""
    try:
        progress = run.state.background.close()
    except CheckpointError as error:
        run.report.message(str(error))
        return
    if progress is not None and run.world.first:
        run.record.follow(progress)
        write_run(run.folder, run.record)


def _prepare(run: RunContext) -> None:
    """Take the memory for copies of the state, if a checkpoint is to come beside the steps."""
    state, every = run.state, run.recipe.run.checkpoint_every
    if not state.background.prepared and every * (state.progress.step // every + 1) < run.steps:
        state.prepare_saving()


def _show(run: RunContext) -> None:
    """Show the observer the model, if this is the time."""
    if run.observer is None:
        return
    number = run.observer.number(run.state.progress.step, run.steps)
    if number is None:
        return
    with run.report.clock.paused(), run.state.whole() as model:
        if model is not None:
            run.observer.observe(model, number)
