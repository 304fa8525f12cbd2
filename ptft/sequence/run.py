"""A sequence of domains: one run after another, each going on from the model of the one before.

After each stage every domain is measured, those before it and those to come, so that the table
shows what was learned, what of it was lost again, and what the start knew of domains not seen yet.
A sequence that was stopped or killed goes on within its stage; what is measured is on disk.

It is a layer above :mod:`ptft.train`: a stage is a run like any other, which knows nothing of the
others.
"""

import logging
import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from ptft.artifact import RunFiles, hash_files, read_json, write_atomic, write_json
from ptft.checkpoint import check_shared
from ptft.data import open_split
from ptft.distributed import World
from ptft.model import DualEncoder, build_model, load_model, save_model
from ptft.model.average import interpolate
from ptft.model.store import WEIGHTS
from ptft.recipe import GuardSection, Recipe, StagedRecipe, stage_recipe
from ptft.runs.data_record import RunOptions
from ptft.runs.folder import RunRecord, RunStatus, lock_run, start_together, write_run
from ptft.runs.opening import Resume
from ptft.sequence.table import StageRows, summary, table
from ptft.speech import LOG, say
from ptft.train import TrainResult, train
from ptft.train.part import Reason, RunPart, Stop, begin_part, mirrored, open_folder
from ptft.train.run import joined_world, train_in
from ptft.train.setup import choose_device

__all__ = ["run_recipe"]

_MIXED = "mixed"  # in a stage's folder: its model after mixing with its start


def run_recipe(
    recipe: Recipe,
    *,
    resume: Resume = False,
    accept_changes: bool = False,
    log: logging.Logger = LOG,
) -> TrainResult:
    """Run any recipe: one run, see :func:`ptft.train.train`, or stages, each a run of its own in a
    folder within the sequence's.

    Args and errors: as of :func:`ptft.train.train`; of stages, ``metrics`` are those of the last
    one's model on every domain.
    """
    if not isinstance(recipe, StagedRecipe):
        return train(recipe, resume=resume, accept_changes=accept_changes, log=log)
    options = RunOptions(resume, accept_changes)
    with joined_world(recipe.run, log) as (world, own):
        return _run_stages(recipe, options, log=own, world=world)


def _run_stages(
    sequence: StagedRecipe, options: RunOptions, *, log: logging.Logger, world: World
) -> TrainResult:
    """Run the stages that are not finished, and measure after each."""
    folder, record = open_folder(sequence, options, world, log)
    with ExitStack() as held:
        part = held.enter_context(begin_part(sequence.run, options, world))
        if record is not None and record.status == RunStatus.FINISHED:
            say(log, f"{folder}: finished before; nothing to do")
            held.enter_context(mirrored(part, sequence.run, folder, world, log))
            found = world.on_first(lambda: read_json(folder / RunFiles.STAGES))
            return _finished(sequence, folder, found, world)
        _enter(held, folder, world)
        total = len(sequence.stages)
        if record is None:
            device = str(choose_device(sequence.run))
            record = start_together(folder, sequence, world, device=device, total=total)
            options.record_data(folder, sequence, world)
        else:
            for note in options.compare_data(folder, sequence, record, world):
                say(log, f"  {note}")
        why = "a stage begins from what the one before has left there"
        check_shared(folder / RunFiles.RUN, world, why=why)
        held.enter_context(mirrored(part, sequence.run, folder, world, log))
        record.status, record.error = RunStatus.RUNNING, ""
        rows = StageRows(sequence, folder, record, log, world)
        rows.measure("start", lambda: _starting_model(sequence))
        for number, stage in enumerate(sequence.stages):
            if rows.known(stage.name):
                continue
            say(log, f"{folder}: stage {number + 1} of {total}: {stage.name}")
            place = folder / f"{number + 1}-{stage.name}"
            with _noted_errors(folder, record, world):
                ended = _run_stage(sequence, number, folder, options, log, world, part)
            if not ended.finished or part.stop.agree(world):
                return _stopped(folder, record, part.stop, world)
            rows.measure(stage.name, partial(_load, place))
            if part.mirror is not None:
                part.mirror.offer()
        world.on_first(lambda: _finish(folder, record, sequence, rows.read(), log))
    return _finished(sequence, folder, world.on_first(rows.read), world)


def _enter(held: ExitStack, folder: Path, world: World) -> None:
    """Lock the sequence's folder until ``held`` ends; the first rank does."""

    def enter() -> None:
        held.enter_context(lock_run(folder))

    world.on_first(enter)


def _run_stage(
    sequence: StagedRecipe,
    number: int,
    folder: Path,
    options: RunOptions,
    log: logging.Logger,
    world: World,
    part: RunPart,
) -> TrainResult:
    """Run a stage from the model of the one before, or go on with it."""
    place = folder / f"{number + 1}-{sequence.stages[number].name}"
    recipe = stage_recipe(
        sequence,
        number,
        start=_start_of(sequence, folder, number),
        folder=str(place),
        samples=_own_samples(sequence, number),
    )
    begun = world.on_first(partial(_begun, place))
    ended = train_in(world, recipe, replace(options, resume=begun), log=log, part=part)
    if ended.finished:
        world.on_first(partial(_mix, place, recipe, sequence.guard))
    return ended


def _finished(
    sequence: StagedRecipe, folder: Path, found: dict[str, Any], world: World
) -> TrainResult:
    metrics = found["metrics"][sequence.stages[-1].name]
    return TrainResult(folder, True, None, metrics, world.first)


def _starting_model(sequence: StagedRecipe) -> DualEncoder:
    return build_model(sequence.model, sequence.init, sequence.objective, seed=sequence.seed)


def _start_of(sequence: StagedRecipe, folder: Path, number: int) -> str | None:
    if number == 0:
        return None
    return str(_model_of(folder / f"{number}-{sequence.stages[number - 1].name}"))


def _model_of(place: Path) -> Path:
    """A stage's model: mixed, where it is."""
    mixed = place / _MIXED
    return mixed if mixed.is_dir() else place / RunFiles.FINAL


def _load(place: Path) -> DualEncoder:
    return load_model(_model_of(place))


def _own_samples(sequence: StagedRecipe, number: int) -> int:
    if sequence.optim.epochs is None:
        return 1
    return len(open_split(sequence.stages[number].data, "train", seed=sequence.seed))


def _begun(place: Path) -> bool:
    """Whether a stage's run can be gone on with; what a kill left before that is cleared away."""
    if (place / RunFiles.RUN).is_file():
        return True
    shutil.rmtree(place, ignore_errors=True)
    return False


def _mix(place: Path, recipe: Recipe, guard: GuardSection | None) -> None:
    """Leave a stage's model mixed with its start, where the guard says so."""
    mixed, unfinished = place / _MIXED, place / f".{_MIXED}.partial"
    if guard is None or guard.mix == 1.0 or mixed.is_dir():
        return
    start = build_model(recipe.model, recipe.init, recipe.objective, seed=recipe.seed)
    shutil.rmtree(unfinished, ignore_errors=True)
    save_model(interpolate(start, load_model(place / RunFiles.FINAL), guard.mix), unfinished)
    unfinished.rename(mixed)


@contextmanager
def _noted_errors(folder: Path, record: RunRecord, world: World) -> Iterator[None]:
    """Leave word, in the sequence's record too, of an error that ends a stage."""
    try:
        yield
    except Exception as error:
        record.status, record.error = RunStatus.FAILED, str(error)
        if world.first:
            with suppress(OSError):
                write_run(folder, record)
        raise


def _stopped(folder: Path, record: RunRecord, stop: Stop, world: World) -> TrainResult:
    record.status = RunStatus.STOPPED
    if world.first:
        write_run(folder, record)
    why = stop.reason or Reason()
    return TrainResult(folder, False, why.signal, {}, world.first, why.late)


def _finish(
    folder: Path,
    record: RunRecord,
    sequence: StagedRecipe,
    found: dict[str, Any],
    log: logging.Logger,
) -> None:
    """Leave the last stage's model, its figures and the table in the sequence's folder."""
    last = sequence.stages[-1].name
    model = _model_of(folder / f"{len(sequence.stages)}-{last}")
    final, unfinished = folder / RunFiles.FINAL, folder / f".{RunFiles.FINAL}.partial"
    shutil.rmtree(unfinished, ignore_errors=True)
    shutil.copytree(model, unfinished, copy_function=_link)
    shutil.rmtree(final, ignore_errors=True)
    unfinished.rename(final)
    found["summary"] = summary(sequence, found["rows"])
    write_json(folder / RunFiles.STAGES, found)
    write_json(folder / RunFiles.METRICS, found["metrics"][last])
    text = table(sequence, found["rows"])
    figures = ", ".join(f"{name} {value:.1%}" for name, value in found["summary"].items())
    write_atomic(folder / RunFiles.STAGES_TABLE, f"{text}\n\n{figures}\n")
    say(log, f"{text}\n{figures}")
    record.files = hash_files(final)
    record.weights_digest = record.files[WEIGHTS]["sha256"]
    record.status = RunStatus.FINISHED
    write_run(folder, record)


def _link(source: str, target: str) -> str:
    """A second name for a file's bytes, or a copy where the disk has no such thing."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
    return target
