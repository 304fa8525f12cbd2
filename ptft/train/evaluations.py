"""What a run measures of its model as it stands: evaluations, validation, nearest neighbours."""

from collections.abc import Sequence
from typing import Literal

from ptft.artifact import RunFiles, write_json
from ptft.data import SampleSet
from ptft.evaluate import Figures, evaluate
from ptft.evaluate.detect import Detections
from ptft.evaluate.ranks import help_first, helped
from ptft.model import DualEncoder
from ptft.recipe import EvaluateItem
from ptft.report.boxes.record import record_boxes
from ptft.report.neighbours.find import record_neighbours
from ptft.runs.finalise import calibrate, count, save_final, threshold
from ptft.runs.folder import note_test_read
from ptft.train.context import RunContext

__all__ = ["evaluate_model", "finish", "note_neighbours", "validate", "validate_if_due"]


def evaluate_model(run: RunContext, when: str, items: Sequence[EvaluateItem]) -> None:
    """Evaluate the model and report it; the first rank does, and the others help it rank.

    Args:
        when: for people, such as ``at step 100``.
    """
    if not items:
        return
    metrics: dict[str, Figures] = {}
    with run.state.whole() as model:
        if model is not None:
            metrics = _figures(run, model, items)
        else:
            _help(run)
    run.report.evaluated(run.state.progress, when, metrics)


def validate(run: RunContext) -> None:
    """Validate for early stopping, and keep the weights if they are the best so far; on every rank
    alike. Nothing, where the recipe does not stop early."""
    state, best = run.state, run.state.best
    if best is None:
        return
    with state.whole() as model:

        def measured() -> dict[str, Figures]:
            assert model is not None
            return _figures(run, model, best.items)

        if model is None:
            _help(run)
        metrics = run.world.on_first(measured)
        better = best.compare(state.progress.step, metrics)
        if better:
            best.take()  # inside, where an average stands in for the weights
    when = f"at step {state.progress.step}{', the best so far' if better else ''}"
    run.report.evaluated(state.progress, when, metrics)


def validate_if_due(run: RunContext) -> None:
    """Validate for early stopping after this step, if that is due and was not done."""
    state = run.state
    last = state.progress.seen >= run.record.total
    if state.best is not None and state.best.is_due(state.progress.step, last=last):
        with run.report.clock.paused():
            validate(run)


def note_neighbours(run: RunContext, stage: Literal["before", "after"]) -> None:
    """Note for the page what the model finds nearest; no weight and no random number moves."""
    settings = run.recipe.run
    if not (settings.page and settings.neighbours):
        return
    reason = None
    with run.report.clock.paused(), run.state.whole(ended=stage == "after") as model:
        if model is not None:
            reason = record_neighbours(run.folder, run.recipe, model, stage, total=run.record.total)
    if reason:
        run.report.message(f"page: no nearest neighbours: {reason}")


def finish(run: RunContext) -> dict[str, Figures]:
    """Leave the model and its last evaluation in the run folder.

    Returns:
        The figures by the names of the recipe's items; none on ranks other than the first.
    """
    best, recipe = run.state.best, run.recipe
    validate_if_due(run)  # where a signal came at the last step
    if best is not None:
        run.report.note(str(best))
        run.record.best = dict(best.state)
    metrics: dict[str, Figures] = {}
    with run.state.whole(ended=True) as model:
        if model is not None:
            if calibration := calibrate(model, recipe):
                run.report.note(str(calibration))
            if chosen := threshold(model, recipe):
                run.report.note(chosen)
            if counted := count(model, recipe):
                run.report.note(counted)
            save_final(run.folder, model, recipe, run.record)
            note_test_read(run.folder, run.record, recipe.evaluate, by="train")
            found: dict[str, tuple[SampleSet, Detections]] = {}
            metrics = _figures(run, model, recipe.evaluate, found)
            if recipe.run.page:
                record_boxes(run.folder, found)
            write_json(run.folder / RunFiles.METRICS, metrics)
        else:
            _help(run)
    if metrics:
        run.report.evaluated(run.state.progress, "after training", metrics)
    note_neighbours(run, "after")
    return metrics


def _figures(
    run: RunContext,
    model: DualEncoder,
    items: Sequence[EvaluateItem],
    keep: dict[str, tuple[SampleSet, Detections]] | None = None,
) -> dict[str, Figures]:
    """On the first rank, while the others :func:`_help`."""
    with helped(run.world):
        return evaluate(
            model,
            items,
            run.recipe.data,
            seed=run.recipe.seed,
            device=run.state.model.device,
            workers=run.recipe.run.workers,
            tell=run.report.message_once,
            keep=keep,
        )


def _help(run: RunContext) -> None:
    help_first(run.world, run.state.model.device)
