"""The one training loop: pretraining, contrastive fine-tuning and classification alike.

It reads top to bottom. Everything that decides the weights is a function of the recipe and of the
number of samples seen, so a resumed run and an uninterrupted one give the same weights.
"""

import math
import shutil
import signal
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import torch
from rich.console import Console

from ptft.artifact import RunFiles, file_sha256, read_json, write_json
from ptft.checkpoint import Progress, prune_checkpoints, resume_checkpoint, save_checkpoint
from ptft.data import Batch
from ptft.data.faults import Tally
from ptft.data.hashing import mix
from ptft.distributed import ALONE
from ptft.errors import TrainingError
from ptft.evaluate import evaluate
from ptft.model import DualEncoder, layer_depths, save_model
from ptft.model.store import WEIGHTS
from ptft.objective import ObjectiveOutput, clamp_logit_scale, compute_objective
from ptft.optim import build_optimizer, learning_rate_factor, set_learning_rate, total_samples
from ptft.recipe import Recipe
from ptft.train.compiled import compile_blocks, uncompiled, wants_compiling
from ptft.train.curves import plot_curves
from ptft.train.ema import Ema
from ptft.train.features import keep_features
from ptft.train.neighbours import look
from ptft.train.parallel import share
from ptft.train.precision import measure_precision
from ptft.train.report import Report, say
from ptft.train.run_folder import RunRecord, RunStatus, open_run, start_run, write_run
from ptft.train.setup import Setup, batches, choose_device, set_up, to_device
from ptft.train.step import Step
from ptft.train.stop import Stop
from ptft.train.trackers import check_trackers

__all__ = ["TrainResult", "train"]


@dataclass(frozen=True)
class TrainResult:
    """What a call of :func:`train` left behind.

    Attributes:
        folder: the run folder.
        finished: False where a signal stopped it; ``--resume`` goes on.
        signal: the signal's number, if one did.
        metrics: what the last evaluation measured, by the names of the recipe's items.
    """

    folder: Path
    finished: bool
    signal: int | None
    metrics: dict[str, dict[str, float]]


def train(recipe: Recipe, *, resume: bool = False, console: Console | None = None) -> TrainResult:
    """Run a recipe to its end, or to the next checkpoint when a signal asks to stop.

    Raises:
        UsageError: the run folder is taken, or there is nothing to resume.
        MissingExtraError: a tracker is not installed.
        DataError, ModelError: what the recipe names cannot be read or does not fit.
        TrainingError: the loss is not finite; the samples of that batch are named in the message.
    """
    console = console or Console(stderr=True)

    # 1. Where: the run folder and the device.
    check_trackers(recipe)
    folder, record = open_run(recipe, resume=resume)
    device = choose_device(recipe)
    if recipe.run.threads is not None:
        torch.set_num_threads(recipe.run.threads)
    torch.manual_seed(recipe.seed)

    # 2. What learns, and from what.
    setup = set_up(recipe, device)
    total = total_samples(recipe.optim, len(setup.samples))
    if record is None:
        recipe = _with_precision(recipe, setup)
        record = start_run(folder, recipe, device=str(device), total=total)
    else:
        recipe = _with_recorded_precision(recipe, record)
    compiled = None
    if wants_compiling(recipe, device, total):
        compiled = compile_blocks(setup.model)
    depths = layer_depths(setup.model) if recipe.optim.layer_decay is not None else None
    optimizer = build_optimizer(setup.model, recipe.optim, depths=depths)
    ema = None if recipe.optim.ema is None else Ema(setup.model, recipe.optim.ema)

    # 3. How far it came before.
    progress = Progress()
    if resume:
        progress = resume_checkpoint(
            folder / RunFiles.CHECKPOINTS,
            setup.model,
            optimizer,
            {} if ema is None else ema.tensors,
            say=partial(say, console),
        )
    if record.status == RunStatus.FINISHED:
        say(console, f"{folder}: finished before; nothing to do")
        return TrainResult(folder, True, None, read_json(folder / RunFiles.METRICS))

    # 4. What need not be computed again.
    setup = keep_features(
        recipe,
        setup,
        total=total,
        world=ALONE,
        say=partial(say, console),
        towers=record.features,
    )
    if record.features is None:
        record.features = list(setup.kept)
        write_run(folder, record)

    # 5. The steps.
    precision = recipe.optim.precision
    report = Report(
        folder,
        recipe,
        record,
        seen=progress.seen,
        step=progress.step,
        seconds=progress.seconds,
        trackers=progress.trackers,
        console=console,
    )
    report.message(f"{folder}: {total:,} samples in {precision}, {device}")
    report.note(f"learns: {setup.learns}")
    for note in (*setup.notes, compiled):
        if note is not None:
            report.note(note)
    loop = _Loop(recipe, folder, setup, optimizer, ema, progress, record, report)
    with report, Stop() as stop:
        if progress.seen == 0:
            loop.look("before")
        report.page()
        loop.run(total, stop)
        finished = progress.seen >= total
        if finished:
            with loop.averaged():
                _save_final(folder, setup.model, record)
            metrics = loop.evaluate("after training")
            write_json(folder / RunFiles.METRICS, metrics)
            loop.look("after")
        else:
            metrics = {}
    record.status = RunStatus.FINISHED if finished else RunStatus.STOPPED
    write_run(folder, record)
    plot_curves(folder)
    report.page(last=True)
    return TrainResult(folder, finished, None if finished else stop.signal, metrics)


@dataclass
class _Loop:
    """The steps of a run, and what goes on between them."""

    recipe: Recipe
    folder: Path
    setup: Setup
    optimizer: torch.optim.Optimizer
    ema: Ema | None
    progress: Progress
    record: RunRecord
    report: Report

    @property
    def model(self) -> DualEncoder:
        return self.setup.model

    def run(self, total: int, stop: Stop) -> None:
        """Step until ``total`` samples are seen or a signal comes; end on a checkpoint."""
        run, progress = self.recipe.run, self.progress
        scaler = torch.amp.GradScaler(
            self.model.device.type, enabled=self.recipe.optim.precision == "fp16"
        )
        if progress.scaler:
            scaler.load_state_dict(progress.scaler)
        saved = progress.seen if progress.step else -1
        pace = self.report.pace
        self.model.train()
        step = Step(self.recipe, share(self.model, ALONE), scaler, self.setup.teacher)
        for batch in batches(
            self.recipe,
            self.setup,
            start=progress.seen,
            end=total,
            size=self.recipe.optim.global_batch,
            workers=run.workers,
        ):
            output, figures = self._step(batch, step, total)
            progress.step += 1
            progress.seen += self.recipe.optim.global_batch
            if self.ema is not None:
                self.ema.update(progress.step)
            self._note_skipped(batch)
            figures["samples_per_second"] = pace.step(progress.seen)
            figures.update(output.scalars)
            progress.seconds = pace.seconds
            last = progress.seen >= total
            if last or progress.step % run.log_every == 0:
                self.report.log(progress.step, progress.seen, figures)
            self.report.step(progress.seen, figures)
            if last or stop.signal or progress.step % run.checkpoint_every == 0:
                progress.scaler = scaler.state_dict()
                with pace.paused():
                    self._checkpoint()
                saved = progress.seen
            if stop.signal:
                break
            if run.evaluate_every and progress.step % run.evaluate_every == 0 and not last:
                with pace.paused():
                    self.evaluate(f"at step {progress.step}")
        assert saved == progress.seen, "a run ends on a checkpoint"
        if progress.skipped:
            self.report.note(Tally.restore(progress.faults).summary(progress.seen))

    def averaged(self) -> AbstractContextManager[None]:
        """Inside, the model has its averaged weights, where the recipe keeps an average."""
        return nullcontext() if self.ema is None else self.ema.applied()

    def evaluate(self, when: str) -> dict[str, dict[str, float]]:
        """The recipe's evaluations of the model as it stands; leaves it in training mode."""
        recipe = self.recipe
        if not recipe.evaluate:
            return {}
        rng = torch.get_rng_state()
        with self.averaged(), uncompiled(self.model):
            metrics = evaluate(
                self.model,
                recipe.evaluate,
                recipe.data,
                seed=recipe.seed,
                device=self.model.device,
                workers=recipe.run.workers,
            )
        torch.set_rng_state(rng)
        self.model.train()
        flat = {
            f"{name}/{key}": value
            for name, figures in metrics.items()
            for key, value in figures.items()
            if isinstance(value, int | float)
        }
        self.report.log(self.progress.step, self.progress.seen, flat)
        for name, figures in metrics.items():
            self.report.message(f"{name} {when}: {_shown(figures)}")
        self.report.page()
        return metrics

    def look(self, stage: Literal["before", "after"]) -> None:
        """Note for the page what the model finds nearest; no weight and no random number moves."""
        if not self.recipe.run.neighbours:
            return
        with self.report.pace.paused(), self.averaged(), uncompiled(self.model):
            reason = look(self.folder, self.recipe, self.model, stage, total=self.record.total)
        if reason:
            self.report.message(f"page: no nearest neighbours: {reason}")

    def _step(
        self, batch: Batch, step: Step, total: int
    ) -> tuple[ObjectiveOutput, dict[str, float]]:
        """Forward, backward, clip, update, clamp."""
        recipe = self.recipe
        factor = learning_rate_factor(recipe.optim, self.progress.seen, total)
        set_learning_rate(self.optimizer.param_groups, factor)
        self.optimizer.zero_grad(set_to_none=True)
        # dropout is a function of the sample seen, too: nothing of it has to be saved
        torch.manual_seed(mix(recipe.seed, self.progress.seen))
        output = step(batch)
        loss = output.loss.item()
        if not math.isfinite(loss):
            raise TrainingError(
                f"step {self.progress.step + 1}: the loss is {loss}; its samples: "
                f"{', '.join(batch.names[:8])}{', ...' if len(batch.names) > 8 else ''}. "
                f"The last good checkpoint is in {self.folder / RunFiles.CHECKPOINTS}; "
                "a lower optim.lr or optim.clip_grad_norm helps"
            )
        scaler = step.scaler
        scaler.unscale_(self.optimizer)
        learning = [p for group in self.optimizer.param_groups for p in group["params"]]
        limit = recipe.optim.clip_grad_norm
        norm = torch.nn.utils.clip_grad_norm_(learning, math.inf if limit is None else limit)
        scaler.step(self.optimizer)
        scaler.update()
        clamp_logit_scale(recipe.objective, self.model)
        return output, {"loss": loss, "lr": recipe.optim.lr * factor, "grad_norm": norm.item()}

    def _note_skipped(self, batch: Batch) -> None:
        """Count, record and tell what a batch skipped. Raises DataError where that is too much."""
        if not batch.skipped:
            return
        progress, before = self.progress, self.progress.skipped
        tally = Tally.restore(progress.faults)
        tally.add(batch.skipped)
        progress.skipped, progress.faults = tally.total, tally.state()
        self.report.skipped(progress.seen, batch.skipped)
        if before < 10 or before.bit_length() < tally.total.bit_length():  # then ever more rarely
            first = batch.skipped[0]
            self.report.message(f"skipped {first.name}: {first.reason} ({tally.total} so far)")
        share = getattr(self.recipe.data, "max_skipped", 1.0)  # scenes have no such key
        size = min(len(self.setup.samples), self.record.total)
        tally.check(share, seen=progress.seen, size=size)

    def _checkpoint(self) -> None:
        folder = self.folder / RunFiles.CHECKPOINTS
        extra = {} if self.ema is None else self.ema.tensors
        save_checkpoint(folder, self.model, self.optimizer, self.progress, extra)
        prune_checkpoints(folder, self.recipe.run.keep, self.progress.step)
        record, progress = self.record, self.progress
        record.step, record.seen, record.skipped = progress.step, progress.seen, progress.skipped
        record.faults = Tally.restore(progress.faults).counts
        record.seconds = round(progress.seconds, 3)
        write_run(self.folder, record)
        self.report.page()


def _with_precision(recipe: Recipe, setup: Setup) -> Recipe:
    """The recipe with a measured precision in place of ``auto``; weights are left alone."""
    if recipe.optim.precision != "auto":
        return recipe
    model, small = setup.model, min(recipe.optim.global_batch, 32)
    batch = next(iter(batches(recipe, setup, start=0, end=small, size=small, workers=0)))
    inputs = to_device(batch, model, recipe)
    rng = torch.get_rng_state()
    model.eval()  # batch statistics must not move; timing hardly differs

    def step() -> torch.Tensor:
        return compute_objective(recipe.objective, model, inputs).loss

    precision = measure_precision(step, model.device)
    model.zero_grad(set_to_none=True)
    torch.set_rng_state(rng)
    optim = recipe.optim.model_copy(update={"precision": precision})
    return recipe.model_copy(update={"optim": optim})


def _with_recorded_precision(recipe: Recipe, record: RunRecord) -> Recipe:
    optim = recipe.optim.model_copy(update={"precision": record.precision})
    return recipe.model_copy(update={"optim": optim})


def _save_final(folder: Path, model: DualEncoder, record: RunRecord) -> None:
    final = folder / RunFiles.FINAL
    partial = folder / f".{RunFiles.FINAL}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    save_model(model, partial)
    shutil.rmtree(final, ignore_errors=True)
    partial.rename(final)
    record.weights_digest = file_sha256(final / WEIGHTS)


def _shown(figures: dict[str, float]) -> str:
    """The figures that people look at first; ``metrics.json`` has them all."""
    main = ("recall@", "top1", "ece")
    return ", ".join(
        f"{key} {value:.1%}" for key, value in figures.items() if any(part in key for part in main)
    )


def exit_code(result: TrainResult) -> int:
    """0 when finished; 128 + the signal's number when stopped, so that a Job is run again."""
    return 0 if result.finished else 128 + (result.signal or signal.SIGTERM)
