"""One run, from its recipe to its model: pretraining, contrastive fine-tuning and classification.

:func:`train_in` reads top to bottom, in four numbered phases. Everything that decides the weights
is a function of the recipe and of the number of samples seen, so a resumed run and an uninterrupted
one give the same weights.
"""

import errno
import logging
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import torch

from ptft.artifact import RunFiles, read_json
from ptft.checkpoint import check_shared
from ptft.data import kept_open
from ptft.distributed import World, join_world
from ptft.errors import MirrorError, TrainingError
from ptft.evaluate.ranks import scores_within
from ptft.lost import told_of_the_lost
from ptft.optim import check_whole_batch, total_samples
from ptft.recipe import Recipe, RunSection
from ptft.recipe.optim import LBFGS
from ptft.report.console import Mute, Report
from ptft.report.trackers import check_trackers
from ptft.runs.data_record import RunOptions
from ptft.runs.folder import (
    RunRecord,
    RunStatus,
    lock_run,
    start_together,
    write_run,
)
from ptft.runs.opening import Resume
from ptft.speech import LOG, SILENT, said_by_another, say
from ptft.train.context import Observer, RunContext
from ptft.train.device import compile_blocks, cpu_threads, keep_freed_memory, wants_compiling
from ptft.train.evaluations import finish, note_neighbours, validate
from ptft.train.kept_features import keep_features
from ptft.train.loop import train_steps
from ptft.train.parallel import check_agreement
from ptft.train.part import Reason, RunPart, begin_part, mirrored, open_folder
from ptft.train.preflight import check_learning, choose_precision
from ptft.train.setup import Setup, choose_device, keep_reading, set_up
from ptft.train.state.train_state import TrainState, initial_state

__all__ = ["TrainResult", "exit_code", "joined_world", "train", "train_in"]

_GO_ON = 75  # EX_TEMPFAIL of sysexits.h: try again later
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@dataclass(frozen=True)
class TrainResult:
    """What a run, or a part of it, left behind.

    Attributes:
        folder: the run folder.
        finished: False where a signal stopped it; ``--resume`` goes on.
        signal: the signal's number, if one did; one that came at the last step changed nothing.
        out_of_time: whether ``run.max_minutes``, SIGUSR1 or SIGUSR2 stopped it.
        metrics: what the last evaluation measured, by the names of the recipe's items; empty on
            ranks other than the first.
        first: whether this process is the first rank, or alone.
    """

    folder: Path
    finished: bool
    signal: int | None
    metrics: dict[str, dict[str, float]]
    first: bool = True
    out_of_time: bool = False


def train(
    recipe: Recipe,
    *,
    resume: Resume = False,
    accept_changes: bool = False,
    record: bool = True,
    log: logging.Logger = LOG,
    observer: Observer | None = None,
) -> TrainResult:
    """Run a recipe to its end, or to the next checkpoint when a signal asks to stop.

    Under torchrun every rank calls this, and the first alone writes, reports and evaluates.
    Processes that torchrun starts again go on with the run that they were in. A recipe of stages is
    run by :func:`ptft.sequence.run_recipe`, which runs any.

    Args:
        resume: go on with a run of this recipe; ``"auto"``: or begin, where there is no run.
        accept_changes: go on although the data or the recipe are not those that the run began with.
        record: keep what the data hold, to resume by; a run that nobody resumes needs none.
        log: of what it says on its way (:mod:`ptft.speech`).
        observer: is shown the model on the way, and may give the run up.

    Raises:
        UsageError: the run folder is taken, or there is nothing to resume.
        MissingExtraError: a tracker is not installed.
        DataError, ModelError: what the recipe names cannot be read or does not fit; or the data
            changed since the run began.
        TrainingError: the loss or a gradient is not finite, or the loss explodes, and
            ``bad_batch.json`` names the samples; or the disk is full; or the mirror is too far
            behind.
        CheckpointError: a checkpoint cannot be written, or does not fit.
        AdaptError: what is said to learn does not, or a merged adapter gives another model.
    """
    options = RunOptions(resume, accept_changes, record)
    with joined_world(recipe.run, log) as (world, own):
        return train_in(world, recipe, options, log=own, observer=observer)


@contextmanager
def joined_world(
    section: RunSection, log: logging.Logger
) -> Iterator[tuple[World, logging.Logger]]:
    """The ranks that torchrun started, and the log of this one: what the first says is heard.

    Raises:
        MissingExtraError: a tracker of the recipe is not installed.
        TrainingError: torchrun's environment is incomplete, or the ranks did not meet; or, of what
            goes on inside, the disk is full.
        LostRankError: another rank is gone.
    """
    check_trackers(section)
    device = choose_device(section).type
    with join_world(device, lost_after=section.lost_after_seconds) as world:
        try:
            with said_by_another(not world.first), told_of_the_lost(world.rank, world.size):
                yield world, log if world.first else SILENT
        except OSError as error:
            if error.errno not in _NO_ROOM:
                raise
            raise TrainingError(
                f"{error}; with room there, --resume goes on from the last good checkpoint"
            ) from error


def train_in(
    world: World,
    recipe: Recipe,
    options: RunOptions,
    *,
    log: logging.Logger,
    observer: Observer | None = None,
    part: RunPart | None = None,
) -> TrainResult:
    """As :func:`train`, among ranks that are there already.

    Args:
        part: of a sequence that this run is a stage of.
    """
    folder, record = open_folder(recipe, options, world, log)
    with ExitStack() as held:
        held.enter_context(kept_open())
        part = part or held.enter_context(begin_part(recipe.run, options, world))
        if record is not None and record.status == RunStatus.FINISHED:
            say(log, f"{folder}: finished before; nothing to do")
            held.enter_context(mirrored(part, recipe.run, folder, world, log))
            metrics = world.on_first(lambda: read_json(folder / RunFiles.METRICS))
            return TrainResult(folder, True, None, metrics, world.first)
        begun = _Begun(world, recipe, folder, record, options, log)
        _enter(begun, held)
        setup, record = _prepare(begun, held)
        held.enter_context(mirrored(part, recipe.run, folder, world, log))
        state = _begin_state(begun, setup, record)
        return _learn(begun, setup, record, state, observer, part)


@dataclass
class _Begun:
    """What the phases of a run share.

    Attributes:
        record: of a run that goes on; None until a new one begins.
        notes: about how it goes on, for people.
    """

    world: World
    recipe: Recipe
    folder: Path
    record: RunRecord | None
    options: RunOptions
    log: logging.Logger
    notes: list[str] = field(default_factory=list)

    @property
    def device(self) -> torch.device:
        return choose_device(self.recipe.run)

    def lock(self, held: ExitStack) -> None:
        def enter() -> None:
            held.enter_context(lock_run(self.folder))

        self.world.on_first(enter)

    def choose(self, precision: str) -> None:
        optim = self.recipe.optim.model_copy(update={"precision": precision})
        self.recipe = self.recipe.model_copy(update={"optim": optim})


def _enter(begun: _Begun, held: ExitStack) -> None:
    """1. Where: the folder of a run that goes on, held against its data; this process's threads,
    memory and seed."""
    if begun.record is not None:
        begun.lock(held)
        if begun.recipe.optim.precision == "auto":
            begun.choose(begun.record.precision)
        begun.record.precision = begun.recipe.optim.precision  # another one may be accepted
        begun.notes = begun.options.compare_data(
            begun.folder, begun.recipe, begun.record, begun.world
        )
    if begun.device.type == "cpu":
        keep_freed_memory()
    held.enter_context(cpu_threads(begun.recipe.run.threads))
    held.enter_context(scores_within(begun.recipe.run.evaluate_mb))
    torch.manual_seed(begun.recipe.seed)


def _prepare(begun: _Begun, held: ExitStack) -> tuple[Setup, RunRecord]:
    """2. What learns, and from what; what of it need not be computed again."""
    world, folder, record = begun.world, begun.folder, begun.record
    setup = set_up(begun.recipe, begun.device, world)
    if record is not None:
        keep_reading(setup.model, folder, world)
    check_agreement(setup.model, len(setup.samples), world)
    total = 0
    if setup.steps:
        if begun.recipe.optim.optimizer == LBFGS:
            check_whole_batch(begun.recipe.optim, len(setup.samples), world.size)
        total = total_samples(begun.recipe.optim, len(setup.samples))
    if record is None:
        recipe = begun.recipe
        begun.choose(world.on_first(lambda: choose_precision(recipe, setup)))
        begun.lock(held)
        device = str(begun.device)
        record = start_together(folder, begun.recipe, world, device=device, total=total)
        begun.options.record_data(folder, begun.recipe, world)
    if begun.recipe.run.parallel == "fsdp":
        why = "under run.parallel: fsdp each machine writes a part of a checkpoint (ddp: the first)"
        check_shared(folder / RunFiles.RUN, world, why=why)
    record.total = total  # of the data as they are now, where other ones were accepted
    setup = _keep_features(begun, setup, record)
    if setup.steps:
        check_learning(begun.recipe, setup)
    steps = total // begun.recipe.optim.global_batch
    if wants_compiling(begun.recipe.run.compile, begun.device, steps):
        setup = replace(setup, notes=(*setup.notes, compile_blocks(setup.model)))
    return setup, record


def _begin_state(begun: _Begun, setup: Setup, record: RunRecord) -> TrainState:
    """3. The optimiser and all that is remembered, over ranks where there are several; and how far
    it came before."""
    state = initial_state(begun.recipe, setup, begun.world, record.total)
    if begun.record is not None and setup.steps:
        checkpoints = begun.folder / RunFiles.CHECKPOINTS
        state.restore(checkpoints, say=partial(say, begun.log))
        if state.progress.step:
            say(begun.log, f"{begun.folder}: goes on after step {state.progress.step:,}")
    return state


def _learn(
    begun: _Begun,
    setup: Setup,
    record: RunRecord,
    state: TrainState,
    observer: Observer | None,
    part: RunPart,
) -> TrainResult:
    """4. The steps, and the model that they leave."""
    folder, recipe, world = begun.folder, begun.recipe, begun.world
    report: Report = Mute(record, state.progress)
    if world.first:
        report = Report(folder, recipe, record, state.progress, log=begun.log)
    report.message(
        f"{folder}: {record.total:,} samples in {recipe.optim.precision}, {begun.device}"
    )
    for note in (*begun.notes, *_notes(begun, setup, state)):
        report.note(note)
    run = RunContext(recipe, folder, setup, state, record, report, observer, part.mirror)
    with report, part.stop.armed(), told_of_the_lost(world.rank, world.size):
        if state.progress.seen == 0:
            note_neighbours(run, "before")
            validate(run)
        report.page()
        if setup.steps:
            train_steps(run, part.stop)
        finished = state.progress.seen >= record.total or state.over
        metrics = finish(run) if finished else {}
    record.status = RunStatus.FINISHED if finished else RunStatus.STOPPED
    if world.first:
        write_run(folder, record)
    report.page(last=True)
    why = part.stop.reason or Reason()
    if why.error and not finished:
        raise MirrorError(why.error)
    return TrainResult(folder, finished, why.signal, metrics, world.first, why.late)


def _keep_features(begun: _Begun, setup: Setup, record: RunRecord) -> Setup:
    """The setup that reads the features of locked towers, of those that the run began with."""
    kept = keep_features(
        begun.recipe,
        setup,
        total=record.total,
        world=begun.world,
        say=partial(say, begun.log),
        towers=record.features,
    )
    if record.features is None:
        record.features = list(kept.kept)
        if begun.world.first:
            write_run(begun.folder, record)
    return kept


def _notes(begun: _Begun, setup: Setup, state: TrainState) -> Iterator[str]:
    """What runs, and how."""
    recipe = begun.recipe
    yield f"learns: {setup.learns}"
    if state.pull is not None:
        yield str(state.pull)
    if state.world.size > 1:
        yield f"on {state.world.size} ranks ({recipe.run.parallel})"
    if recipe.optim.micro_batch is not None:
        yield f"at most {recipe.optim.micro_batch} samples at once on a rank (GradCache)"
    yield from setup.notes


def exit_code(result: TrainResult) -> int:
    """0 when finished; 75 when out of time, or warned of that by SIGUSR1 or SIGUSR2; 128 + the
    signal's number at SIGTERM (143) and Ctrl-C (130). Whoever starts runs goes on at 75 and 143."""
    if result.finished:
        return 0
    if result.out_of_time or result.signal is None:
        return _GO_ON
    return 128 + result.signal
