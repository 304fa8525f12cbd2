"""When to stop a run that goes wrong, and what to tell of the batch at which it did.

Three things stop a run: a loss that is not finite, a gradient that is not (under fp16 once the loss
is not scaled up any more; before that the scaler skips the step and scales less), and a loss that
explodes. On a CPU it stops before the weights take any of it. On a GPU the figures of several steps
are read at once (:mod:`ptft.train.readings`), so it stops up to ``run.log_every`` steps later, but
for the same step and in the same words; and no weights are saved, validated or evaluated whose
steps the guard has not seen.

Explosion: cross-entropies and the sigmoid loss count nats, so they are held by difference and not
by ratio (fine-tuning may start at 0.01). The loss is averaged over about the last 20 steps; once
this average lies ``optim.stop_above`` nats above the lowest that it has been, right answers have
become e^3 = 20 times less likely than they were at best (at the default of 3), and no learning rate
schedule mends that. One outlier cannot do it: a step counts for at most half the way. A model that
collapses to guessing is found the same way wherever guessing, log(batch) nats for InfoNCE, is so
much worse than what was learned.
"""

import math
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

import torch

from ptft.artifact import RunFiles, write_json
from ptft.data import Batch
from ptft.distributed import World
from ptft.errors import TrainingError
from ptft.train.setup import Setup

__all__ = ["Guard", "GuardState", "describe_batch", "stop_run"]

_SHARE = 0.05  # of the newest loss in the average: about 20 steps
_STEPS = 20  # before the average is checked
_OUTLIER = 10.0  # times the limit: what one loss counts for at most; half of it after _SHARE
_RECENT = 20  # steps that bad_batch.json lists


@dataclass(frozen=True)
class _Figures:
    step: int
    loss: float
    grad_norm: float


class GuardState(TypedDict, total=False):
    """What a checkpoint keeps of a :class:`Guard`: steps that it checked, the average of the loss
    and the lowest that this has been, in nats. Empty before the first step."""

    steps: int
    average: float
    lowest: float


class Guard:
    """Checks each step by its loss and gradient norm, which are the same on every rank.

    Args:
        limit: ``optim.stop_above``.
        state: from a checkpoint, where the run goes on.

    Attributes:
        state: for the next checkpoint.
    """

    def __init__(self, limit: float | None, state: GuardState | None = None) -> None:
        self.limit = limit
        self.state: GuardState = state or {}
        self.recent: deque[_Figures] = deque(maxlen=_RECENT)

    def check(self, step: int, loss: float, grad_norm: float, *, loss_scale: float) -> str | None:
        """Why the run must stop at this step, or None.

        Args:
            loss_scale: what the loss was multiplied by (fp16); at most 1 without.
        """
        self.recent.append(_Figures(step, loss, grad_norm))
        if not math.isfinite(loss):
            return f"the loss is {loss}"
        if not math.isfinite(grad_norm) and loss_scale <= 1.0:
            return f"the gradient's norm is {grad_norm} (loss {loss:.4g})"
        return self._check_rise(loss)

    def _check_rise(self, loss: float) -> str | None:
        if self.limit is None:
            return None
        state, limit = self.state, self.limit
        steps = state.get("steps", 0) + 1
        before = state.get("average", loss)
        # a plain mean of the first steps, so that the first loss weighs no more than its due
        share = max(_SHARE, 1.0 / steps)
        average = before + share * min(loss - before, _OUTLIER * limit)
        lowest = min(state.get("lowest", average), average)
        self.state = {"steps": steps, "average": average, "lowest": lowest}
        if steps < _STEPS or average - lowest <= limit:
            return None
        return (
            f"the loss explodes: {average:.4g} on average of the last {_STEPS} steps, "
            f"{average - lowest:.3g} above the lowest average; optim.stop_above: {limit:g}"
        )


def describe_batch(batch: Batch, first: int, setup: Setup) -> list[dict[str, Any]]:
    """Each sample's position in the run, name, caption as the model reads it, and class.

    Args:
        first: position of the batch's first sample.
    """
    samples: list[dict[str, Any]] = [
        {"position": first + number, "name": name} for number, name in enumerate(batch.names)
    ]
    if isinstance(batch.tokens, torch.Tensor):
        texts = setup.model.spec.tokenizer.decode(batch.tokens.numpy())
        for sample, text in zip(samples, texts, strict=True):
            sample["caption"] = text
    if batch.labels is not None:
        classes = setup.samples.classes or []
        for sample, label in zip(samples, batch.labels.tolist(), strict=True):
            sample["label"] = classes[label] if 0 <= label < len(classes) else label
    return samples


def stop_run(
    reason: str, guard: Guard, samples: list[dict[str, Any]], folder: Path, world: World
) -> TrainingError:
    """The error to raise on every rank; ``bad_batch.json`` then holds the batch of all of them.

    The file is a help: where it cannot be written the error says the rest.
    """
    every = [sample for part in world.gather_objects(samples) for sample in part]
    last = guard.recent[-1]
    path = folder / RunFiles.BAD_BATCH
    where = f"all of them in {path}"
    if world.first:
        try:
            write_json(
                path,
                {
                    "step": last.step,
                    "reason": reason,
                    "loss": _number(last.loss),
                    "grad_norm": _number(last.grad_norm),
                    "samples": every,
                    "recent": [
                        {
                            "step": one.step,
                            "loss": _number(one.loss),
                            "grad_norm": _number(one.grad_norm),
                        }
                        for one in guard.recent
                    ],
                },
            )
        except OSError as error:
            where = f"{path} cannot be written: {error}"
    names = ", ".join(sample["name"] for sample in every[:8])
    return TrainingError(
        f"step {last.step}: {reason}; its samples: {names}{', ...' if len(every) > 8 else ''} "
        f"({where}). The last good checkpoint is in {folder / RunFiles.CHECKPOINTS}; a lower "
        "optim.lr or optim.clip_grad_norm, or a longer optim.warmup, helps"
    )


def _number(value: float) -> float | str:
    """JSON has no infinity."""
    return value if math.isfinite(value) else str(value)
