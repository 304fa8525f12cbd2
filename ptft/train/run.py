"""The one training loop: pretraining, contrastive fine-tuning and classification alike.

It reads top to bottom. Everything that decides the weights is a function of the recipe and of the
number of samples seen, so a resumed run and an uninterrupted one give the same weights.
"""

import errno
import logging
import signal
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch

from ptft.artifact import RunFiles, read_json
from ptft.checkpoint import Progress, resume_checkpoint
from ptft.distributed import World, join_world
from ptft.errors import TrainingError
from ptft.model import layer_depths
from ptft.optim import build_optimizer, check_whole_batch, total_samples
from ptft.recipe import Recipe, StagedRecipe
from ptft.report.console import Mute, Report
from ptft.report.trackers import check_trackers
from ptft.runs.data_record import Going
from ptft.runs.folder import (
    RunRecord,
    RunStatus,
    open_together,
    start_together,
    write_run,
)
from ptft.runs.lock import claim_run
from ptft.speech import LOG, SILENT, say
from ptft.threads import cpu_threads
from ptft.train.allocator import keep_freed_memory
from ptft.train.compiled import compile_blocks, wants_compiling
from ptft.train.guard import Guard
from ptft.train.kept_features import keep_features
from ptft.train.loop import Loop
from ptft.train.observer import Watch
from ptft.train.parallel import check_agreement, share
from ptft.train.preflight import check_learning, choose_precision
from ptft.train.setup import (
    Setup,
    choose_device,
    keep_reading,
    set_up,
)
from ptft.train.signals import Stop
from ptft.train.stages import Ended, run_stages
from ptft.train.state.best import keep_best
from ptft.train.state.ema import Ema
from ptft.train.state.regularise import Pull, pull_to_start
from ptft.train.state.weight_copy import extra_tensors

__all__ = ["TrainResult", "exit_code", "train"]

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@dataclass(frozen=True)
class TrainResult:
    """What a call of :func:`train` left behind.

    Attributes:
        folder: the run folder.
        finished: False where a signal stopped it; ``--resume`` goes on.
        signal: the signal's number, if one did; one that came at the last step changed nothing.
        metrics: what the last evaluation measured, by the names of the recipe's items; empty on
            ranks other than the first.
        first: whether this process is the first rank, or alone.
    """

    folder: Path
    finished: bool
    signal: int | None
    metrics: dict[str, dict[str, float]]
    first: bool = True


def train(
    recipe: Recipe,
    *,
    resume: bool = False,
    accept_changes: bool = False,
    record: bool = True,
    log: logging.Logger = LOG,
    watch: Watch | None = None,
) -> TrainResult:
    """Run a recipe to its end, or to the next checkpoint when a signal asks to stop.

    Under torchrun every rank calls this, and the first alone writes, reports and evaluates.
    Processes that torchrun starts again go on with the run that they were in.

    Args:
        accept_changes: go on although the data are not those that the run began with.
        record: keep what the data hold, to resume by; a run that nobody resumes needs none.
        log: of what it says on its way (:mod:`ptft.speech`).
        watch: looks at the run on its way, and may give it up; not at one of stages.

    Raises:
        UsageError: the run folder is taken, or there is nothing to resume.
        MissingExtraError: a tracker is not installed.
        DataError, ModelError: what the recipe names cannot be read or does not fit; or the data
            changed since the run began.
        TrainingError: the loss or a gradient is not finite, or the loss explodes, and
            ``bad_batch.json`` names the samples; or the disk is full.
        CheckpointError: a checkpoint cannot be written, or does not fit.
        AdaptError: what is said to learn does not, or a merged adapter gives another model.
    """
    check_trackers(recipe)
    going = Going(resume, accept_changes, record)
    with join_world(choose_device(recipe).type) as world, ExitStack() as held:
        own = log if world.first else SILENT
        try:
            if isinstance(recipe, StagedRecipe):
                return _train_stages(recipe, going, own, world)
            return _train(recipe, going, own, world, held, watch)
        except OSError as error:
            raise _explained(error) from error


def _train_stages(
    sequence: StagedRecipe, going: Going, log: logging.Logger, world: World
) -> TrainResult:
    """Each stage is a run of its own, in a folder within the sequence's."""

    def run(recipe: Recipe, begun: bool, held: ExitStack) -> Ended:
        result = _train(recipe, replace(going, resume=begun), log, world, held)
        return Ended(result.finished, result.signal)

    folder, ended, found = run_stages(sequence, run, going=going, log=log, world=world)
    metrics = found["metrics"][sequence.stages[-1].name] if ended.finished else {}
    return TrainResult(folder, ended.finished, ended.signal, metrics, world.first)


def _train(
    recipe: Recipe,
    going: Going,
    log: logging.Logger,
    world: World,
    held: ExitStack,
    watch: Watch | None = None,
) -> TrainResult:
    # 1. Where: the run folder and the device.
    folder, record = open_together(recipe, world, resume=going.resume)
    if record is not None and record.status == RunStatus.FINISHED:
        say(log, f"{folder}: finished before; nothing to do")
        metrics = world.told(lambda: read_json(folder / RunFiles.METRICS))
        return TrainResult(folder, True, None, metrics, world.first)
    told: list[str] = []
    resume = record is not None
    if record is not None:
        world.told(lambda: held.enter_context(claim_run(folder)))
        recipe = _with_precision(recipe, record.precision)
        told = going.hold(folder, recipe, record, world)
    device = choose_device(recipe)
    if device.type == "cpu":
        keep_freed_memory()
    held.enter_context(cpu_threads(recipe.run.threads))
    torch.manual_seed(recipe.seed)

    # 2. What learns, and from what; what of it need not be computed again.
    setup = set_up(recipe, device, world)
    if resume:
        keep_reading(setup.model, folder)
    check_agreement(setup.model, len(setup.samples), world)
    total = 0
    if setup.steps:
        check_whole_batch(recipe.optim, len(setup.samples), world.size)
        total = total_samples(recipe.optim, len(setup.samples))
    if record is None:
        precision = world.told(lambda: choose_precision(recipe, setup))
        recipe = _with_precision(recipe, precision)
        world.told(lambda: held.enter_context(claim_run(folder)))
        record = start_together(folder, recipe, world, device=str(device), total=total)
        going.begin(folder, recipe, world)
    record.total = total  # of the data as they are now, where other ones were accepted
    setup = _keep_features(recipe, setup, folder, record, log, world)
    if setup.steps:
        check_learning(recipe, setup)
    if wants_compiling(recipe, device, total):
        setup = replace(setup, notes=(*setup.notes, compile_blocks(setup.model)))

    # 3. The optimiser, over ranks where there are several; and how far it came before.
    depths = layer_depths(setup.model) if recipe.optim.layer_decay is not None else None
    parallel = share(setup.model, world, recipe.run.parallel)
    optimizer: torch.optim.Optimizer = torch.optim.SGD([{"params": []}])  # that never steps
    if setup.steps:
        optimizer = build_optimizer(setup.model, recipe.optim, depths=depths)
    ema = None if recipe.optim.ema is None else Ema(setup.model, recipe.optim.ema)
    pull = pull_to_start(recipe, setup)  # to the weights of now, before a checkpoint's are read
    best = keep_best(recipe, setup.model, total, {}) if setup.steps else None  # of now, too
    progress = Progress()
    if resume and setup.steps:
        progress = resume_checkpoint(
            folder / RunFiles.CHECKPOINTS,
            setup.model,
            optimizer,
            extra_tensors(ema, best),
            world=world,
            say=partial(say, log),
        )
    if best is not None:
        best.state = progress.best

    # 4. The steps.
    report = _open_report(folder, recipe, record, progress, log, world)
    report.message(f"{folder}: {total:,} samples in {recipe.optim.precision}, {device}")
    for note in (*told, *_notes(recipe, setup, world, pull)):
        report.note(note)
    guard = Guard(recipe.optim.stop_above, progress.guard)
    loop = Loop(
        recipe,
        folder,
        setup,
        parallel,
        optimizer,
        ema,
        pull,
        best,
        progress,
        record,
        report,
        guard,
        watch,
    )
    with report, Stop() as stop:
        if progress.seen == 0:
            loop.look("before")
            loop.judge()
        report.page()
        if setup.steps:
            loop.run(total, stop)
        finished = progress.seen >= total or loop.over
        metrics = loop.finish() if finished else {}
    record.status = RunStatus.FINISHED if finished else RunStatus.STOPPED
    if world.first:
        write_run(folder, record)
    report.page(last=True)
    number = stop.signal
    if not finished:
        number = number or signal.SIGTERM  # it may have come to another rank
    return TrainResult(folder, finished, number, metrics, world.first)


def _keep_features(
    recipe: Recipe, setup: Setup, folder: Path, record: RunRecord, log: logging.Logger, world: World
) -> Setup:
    """The setup that reads the features of locked towers, of those that the run began with."""
    kept = keep_features(
        recipe,
        setup,
        total=record.total,
        world=world,
        say=partial(say, log),
        towers=record.features,
    )
    if record.features is None:
        record.features = list(kept.kept)
        if world.first:
            write_run(folder, record)
    return kept


def _open_report(
    folder: Path,
    recipe: Recipe,
    record: RunRecord,
    progress: Progress,
    log: logging.Logger,
    world: World,
) -> Report:
    if not world.first:
        return Mute(record, seen=progress.seen, seconds=progress.seconds)
    return Report(
        folder,
        recipe,
        record,
        seen=progress.seen,
        step=progress.step,
        seconds=progress.seconds,
        trackers=progress.trackers,
        log=log,
    )


def _notes(recipe: Recipe, setup: Setup, world: World, pull: Pull | None) -> Iterator[str]:
    """What runs, and how."""
    yield f"learns: {setup.learns}"
    if pull is not None:
        yield str(pull)
    if world.size > 1:
        yield f"on {world.size} ranks ({recipe.run.parallel})"
    if recipe.optim.micro_batch is not None:
        yield f"at most {recipe.optim.micro_batch} samples at once on a rank (GradCache)"
    yield from setup.notes


def _explained(error: OSError) -> Exception:
    """An error that a full disk explains, as one that says what to do."""
    if error.errno not in _NO_ROOM:
        return error
    return TrainingError(
        f"{error}; with room there, --resume goes on from the last good checkpoint"
    )


def _with_precision(recipe: Recipe, precision: str) -> Recipe:
    optim = recipe.optim.model_copy(update={"precision": precision})
    return recipe.model_copy(update={"optim": optim})


def exit_code(result: TrainResult) -> int:
    """0 when finished; 128 + the signal's number when stopped, so that a Job is run again."""
    return 0 if result.finished else 128 + (result.signal or signal.SIGTERM)
