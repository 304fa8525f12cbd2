"""The steps of a run, and what goes on between them: looks, checkpoints, evaluations, the end."""

import json
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import torch

from ptft.artifact import RunFiles, write_json
from ptft.checkpoint import Progress, prune_checkpoints, save_checkpoint
from ptft.data import Batch
from ptft.data.hashing import hash_integers
from ptft.data.reading.batch import Skip, Skipped
from ptft.data.reading.faults import Tally
from ptft.distributed import World
from ptft.evaluate import Figures, evaluate
from ptft.model import DualEncoder
from ptft.objective import clamp_logit_scale
from ptft.optim import Lbfgs, learning_rate_factor, set_learning_rate
from ptft.recipe import EvaluateItem, Recipe
from ptft.report.console import Report
from ptft.report.neighbours.find import record_neighbours
from ptft.runs.folder import RunRecord, note_test_read, write_run
from ptft.train.batches import batches
from ptft.train.compiled import uncompiled
from ptft.train.finalise import calibrate, save_final
from ptft.train.gradients import Step, loss_scaler
from ptft.train.guard import Guard, describe_batch, stop_run
from ptft.train.observer import Watch
from ptft.train.parallel import Parallel, whole_tensor
from ptft.train.setup import Setup
from ptft.train.signals import Stop
from ptft.train.state.best import Best
from ptft.train.state.ema import Ema
from ptft.train.state.regularise import Pull
from ptft.train.state.weight_copy import Shadow, extra_tensors

__all__ = ["Loop"]


@dataclass(frozen=True)
class _Stepped:
    """What a step gave, over all ranks.

    Attributes:
        figures: means over the ranks.
        stopping: whether one of them was asked to stop.
        skipped: samples that could not be read.
    """

    figures: dict[str, float]
    stopping: bool
    skipped: Skipped


@dataclass
class Loop:
    """The steps of a run, and what goes on between them."""

    recipe: Recipe
    folder: Path
    setup: Setup
    parallel: Parallel
    optimizer: torch.optim.Optimizer
    ema: Ema | None
    pull: Pull | None
    best: Best | None
    progress: Progress
    record: RunRecord
    report: Report
    guard: Guard
    watch: Watch | None = None
    ended: bool = False
    _told: set[str] = field(default_factory=set)

    @property
    def model(self) -> DualEncoder:
        return self.setup.model

    @property
    def world(self) -> World:
        return self.parallel.world

    @property
    def over(self) -> bool:
        """Whether going on is of no more use."""
        return self.best is not None and self.best.over

    def run(self, total: int, stop: Stop) -> None:
        """Step until ``total`` samples are seen, more is of no use or a signal comes; end on a
        checkpoint."""
        self._catch_up(total)
        if self.over:  # resumed after its last step
            return
        run, progress = self.recipe.run, self.progress
        scaler = loss_scaler(self.recipe.optim.precision, self.model.device)
        if progress.scaler:
            scaler.load_state_dict(progress.scaler)
        saved = progress.seen if progress.step else -1
        clock = self.report.clock
        self.model.train()
        step = Step(
            self.recipe.objective,
            self.recipe.optim,
            self.parallel,
            scaler=scaler,
            teacher=self.setup.teacher,
        )
        for batch in batches(
            self.recipe,
            self.setup,
            start=progress.seen,
            end=total,
            size=self.recipe.optim.global_batch,
            workers=run.workers,
            world=self.world,
        ):
            stepped = self._step(batch, step, total, stop)
            figures = stepped.figures
            progress.step += 1
            progress.seen += self.recipe.optim.global_batch
            if self.ema is not None:
                self.ema.update(progress.step)
            self._note_skipped(stepped.skipped)
            figures["samples_per_second"] = clock.step(progress.seen)
            progress.seconds = clock.seconds
            last = progress.seen >= total
            if not stepped.stopping:  # whoever asks to stop waits for the checkpoint alone
                self._catch_up(total)  # before a checkpoint, which the next step goes on from
            last = last or self.over
            if last or progress.step % run.log_every == 0:
                self.report.log(progress.step, progress.seen, figures)
            self.report.step(progress.seen, figures)
            if last or stepped.stopping or progress.step % run.checkpoint_every == 0:
                progress.scaler = scaler.state_dict()
                with clock.paused():
                    self._checkpoint()
                saved = progress.seen
            if stepped.stopping or self.over:
                break
            self._show(-(-total // self.recipe.optim.global_batch))
            if run.evaluate_every and progress.step % run.evaluate_every == 0 and not last:
                with clock.paused():
                    self.evaluate(
                        f"at step {progress.step}",
                        [item for item in self.recipe.evaluate if item.split != "test"],
                    )
        assert saved == progress.seen, "a run ends on a checkpoint"
        if progress.skipped:
            self.report.note(Tally.restore(progress.faults).summary(progress.seen))

    @contextmanager
    def whole(self) -> Iterator[DualEncoder | None]:
        """The model to look at or to save: with its averaged weights, where the recipe keeps an
        average, in the end with the best ones, where it keeps those; whole and not compiled; on the
        first rank, None on the others."""
        shadow: Shadow | None = self.best if self.ended and self.best is not None else self.ema
        applied = nullcontext() if shadow is None else shadow.applied()
        with applied, uncompiled(self.model), self.parallel.whole() as model:
            yield model

    def evaluate(self, when: str, items: Sequence[EvaluateItem]) -> dict[str, Figures]:
        """Evaluations of the model as it stands; leaves it in training mode.

        The first rank makes them, and the others wait and get none.
        """
        if not items:
            return {}
        metrics: dict[str, Figures] = {}
        with self.whole() as model:
            if model is not None:
                metrics = self._figures(model, items)
        self.model.train()
        self.report.evaluated(self.progress, when, metrics)
        return metrics

    def _catch_up(self, total: int) -> None:
        """Have the look that is due after this step, unless it was had."""
        progress, best = self.progress, self.best
        if best is not None and best.is_due(progress.step, last=progress.seen >= total):
            with self.report.clock.paused():
                self.judge()

    def judge(self) -> None:
        """Have a look, and keep the weights if they are the best so far; on every rank alike."""
        best, step = self.best, self.progress.step
        if best is None:
            return
        with self.whole() as model:

            def measured() -> dict[str, Figures]:
                assert model is not None
                return self._figures(model, best.items)

            metrics = self.world.told(measured)
            better = best.judge(step, metrics)
            if better:
                best.take()  # inside, where an average stands in for the weights
        self.model.train()
        when = f"at step {step}{', the best so far' if better else ''}"
        self.report.evaluated(self.progress, when, metrics)

    def _show(self, steps: int) -> None:
        """Let whoever watches see the model, if this is the time."""
        number = None if self.watch is None else self.watch.number(self.progress.step, steps)
        if self.watch is None or number is None:
            return
        with self.report.clock.paused(), self.whole() as model:
            if model is not None:
                self.watch.look(model, number)
        self.model.train()

    def _figures(self, model: DualEncoder, items: Sequence[EvaluateItem]) -> dict[str, Figures]:
        recipe = self.recipe
        return evaluate(
            model,
            items,
            recipe.data,
            seed=recipe.seed,
            device=self.model.device,
            workers=recipe.run.workers,
            tell=self._tell_once,
        )

    def _tell_once(self, line: str) -> None:
        if line not in self._told:
            self._told.add(line)
            self.report.message(f"  {line}")

    def look(self, stage: Literal["before", "after"]) -> None:
        """Note for the page what the model finds nearest; no weight and no random number moves."""
        run = self.recipe.run
        if not (run.page and run.neighbours):
            return
        reason = None
        with self.report.clock.paused(), self.whole() as model:
            if model is not None:
                reason = record_neighbours(
                    self.folder, self.recipe, model, stage, total=self.record.total
                )
        if reason:
            self.report.message(f"page: no nearest neighbours: {reason}")

    def finish(self) -> dict[str, Figures]:
        """Leave the model and its last evaluation in the run folder."""
        self._catch_up(self.record.total)  # where a signal came at the last step
        self.ended = True
        if self.best is not None:
            self.report.note(str(self.best))
            self.record.best = dict(self.best.state)
        metrics: dict[str, Figures] = {}
        with self.whole() as model:
            if model is not None:
                if calibration := calibrate(model, self.recipe):
                    self.report.note(str(calibration))
                save_final(self.folder, model, self.recipe, self.record)
                note_test_read(self.folder, self.record, self.recipe.evaluate, by="train")
                metrics = self._figures(model, self.recipe.evaluate)
                write_json(self.folder / RunFiles.METRICS, metrics)
        if metrics:
            self.report.evaluated(self.progress, "after training", metrics)
        self.look("after")
        return metrics

    def _step(self, batch: Batch, step: Step, total: int, stop: Stop) -> _Stepped:
        """Forward, backward, clip, update, clamp."""
        recipe = self.recipe
        factor = learning_rate_factor(recipe.optim, self.progress.seen, total)
        set_learning_rate(self.optimizer.param_groups, factor)
        stepped = self._agree(self._gradients(batch, step), batch, stop)
        learning = [p for group in self.optimizer.param_groups for p in group["params"]]
        limit = recipe.optim.clip_grad_norm
        norm = torch.nn.utils.clip_grad_norm_(learning, math.inf if limit is None else limit)
        stepped.figures["lr"] = recipe.optim.lr * factor
        stepped.figures["grad_norm"] = whole_tensor(norm).item()
        scaler = step.scaler
        self._judge(stepped.figures, batch, scaler.get_scale())
        if isinstance(self.optimizer, Lbfgs):
            self.optimizer.search(
                _minimised(stepped.figures), lambda: _minimised(self._gradients(batch, step))
            )
        else:
            scaler.step(self.optimizer)
            scaler.update()
        clamp_logit_scale(recipe.objective, self.model)
        return stepped

    def _gradients(self, batch: Batch, step: Step) -> dict[str, float]:
        """Put the gradients of a batch on the weights; this rank's figures, the loss among them."""
        self.optimizer.zero_grad(set_to_none=True)
        # dropout is a function of the sample seen, too: nothing of it has to be saved
        torch.manual_seed(hash_integers(self.recipe.seed, self.progress.seen, self.world.rank))
        output = step(batch)
        step.scaler.unscale_(self.optimizer)
        figures = {"loss": output.loss.item(), **output.scalars}
        if self.pull is not None:
            figures["pull"] = self.pull.add_gradients(self.world)
        return figures

    def _judge(self, figures: dict[str, float], batch: Batch, loss_scale: float) -> None:
        """Stop before the update, where the loss or the gradient tells that the run goes wrong."""
        reason = self.guard.judge(
            self.progress.step + 1, figures["loss"], figures["grad_norm"], loss_scale=loss_scale
        )
        if reason is not None:
            first = self.progress.seen + self.world.rank * len(batch.names)
            samples = describe_batch(batch, first, self.setup)
            raise stop_run(reason, self.guard, samples, self.folder, self.world)

    def _agree(self, figures: dict[str, float], batch: Batch, stop: Stop) -> _Stepped:
        """Make one of what the ranks have to say, in one message."""
        own = {**figures, "stop": float(bool(stop.signal)), "skipped": float(len(batch.skipped))}
        agreed = self.world.mean(own)
        stopping, skips = agreed.pop("stop") > 0, agreed.pop("skipped") > 0
        texts = self.world.gather_texts(json.dumps(batch.skipped)) if skips else []
        skipped = [Skip(*values) for text in texts for values in json.loads(text)]
        return _Stepped(agreed, stopping, skipped)

    def _note_skipped(self, skipped: Skipped) -> None:
        """Count, record and tell what a step skipped. Raises DataError where that is too much."""
        if not skipped:
            return
        progress, before = self.progress, self.progress.skipped
        tally = Tally.restore(progress.faults)
        tally.add(skipped)
        progress.skipped, progress.faults = tally.total, tally.state()
        self.report.skipped(progress.seen, skipped)
        if before < 10 or before.bit_length() < tally.total.bit_length():  # then ever more rarely
            first = skipped[0]
            self.report.message(f"skipped {first.name}: {first.reason} ({tally.total} so far)")
        share = getattr(self.recipe.data, "max_skipped", 1.0)  # scenes have no such key
        size = min(len(self.setup.samples), self.record.total)
        tally.check(share, seen=progress.seen, size=size)

    def _checkpoint(self) -> None:
        folder = self.folder / RunFiles.CHECKPOINTS
        extra = extra_tensors(self.ema, self.best)
        save_checkpoint(folder, self.model, self.optimizer, self.progress, extra, world=self.world)
        if not self.world.first:
            return
        prune_checkpoints(folder, self.recipe.run.keep, self.progress.step)
        record, progress = self.record, self.progress
        record.step, record.seen, record.skipped = progress.step, progress.seen, progress.skipped
        record.faults = Tally.restore(progress.faults).counts
        record.seconds = round(progress.seconds, 3)
        write_run(self.folder, record)
        self.report.page()


def _minimised(figures: dict[str, float]) -> float:
    """What the gradients are of."""
    return figures["loss"] + figures.get("pull", 0.0)
