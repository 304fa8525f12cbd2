"""Where the time of a recipe's step goes on this machine, and what to do about the largest part."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from typing import TypeVar

import torch

from ptft.data import Batch
from ptft.data.reading.loader import worker_count
from ptft.errors import RecipeError
from ptft.model import layer_depths
from ptft.objective import Features, classify_loss, compute_objective, features_loss
from ptft.optim import build_optimizer, total_samples
from ptft.recipe import ClassifyObjective, Recipe
from ptft.threads import cpu_threads
from ptft.train.allocator import keep_freed_memory
from ptft.train.precision import autocast, measure_precision
from ptft.train.setup import Setup, batches, choose_device, set_up, to_device

__all__ = ["Measured", "measure_step"]

_T = TypeVar("_T")
_STEPS = 5  # timed, after one that is not
_PARTS = ("data", "copy", "forward", "loss", "backward", "optimiser")


@dataclass(frozen=True)
class Measured:
    """Seconds of one step's parts, the median of a few steps.

    Attributes:
        seconds: by part. On a CPU they are CPU seconds over the threads that share them, so that
            other load does not count; ``data`` is what reading a batch costs, over the workers.
        batch: samples of the step that was timed.
        workers: processes that read ahead; 0 reads between the steps.
        precision: that the towers ran in.
    """

    seconds: dict[str, float]
    batch: int
    workers: int
    precision: str
    device: str

    @property
    def step_seconds(self) -> float:
        """Of one step: workers read beside the rest, without them reading comes on top."""
        rest = sum(value for part, value in self.seconds.items() if part != "data")
        data = self.seconds["data"]
        return max(data, rest) if self.workers else data + rest

    @property
    def samples_per_second(self) -> float:
        return self.batch / self.step_seconds

    @property
    def bottleneck(self) -> str:
        """The part that a step waits for longest."""
        rest = {part: value for part, value in self.seconds.items() if part != "data"}
        if self.seconds["data"] > (sum(rest.values()) if self.workers else max(rest.values())):
            return "data"
        return max(rest, key=lambda part: rest[part])

    @property
    def advice(self) -> str:
        """What makes the bottleneck smaller."""
        match self.bottleneck:
            case "data" if self.workers:
                return (
                    "raise run.workers if cores are free, or shrink the pictures once with "
                    "`ptft data pack`"
                )
            case "data":
                return "run.workers: 1 or more reads beside the steps, not between them"
            case "loss":
                return (
                    "more ranks share the pairs; fewer pairs a batch cost less than in proportion"
                )
            case "copy":
                return "a larger optim.global_batch copies less often"
            case "optimiser":
                return (
                    "adapt.lock leaves a tower out; a larger optim.global_batch updates less often"
                )
            case "backward":
                return "adapt.lock or adapt.kind: probe learns less"
        if self.device == "cuda":
            return "a smaller model or picture; augment.patch_dropout; run.compile: on"
        return "a smaller model or picture; augment.patch_dropout; a GPU"


def measure_step(recipe: Recipe, *, steps: int = _STEPS) -> Measured:
    """Time the parts of a few steps with the recipe's real settings; nothing is written.

    At most 64 samples a step are timed on a CPU (``optim.micro_batch`` or the batch where these
    are smaller), since the parts grow with them alike.

    Raises:
        DataError, ModelError, RecipeError: as training would.
    """
    with cpu_threads(recipe.run.threads):
        return _measure(recipe, steps)


def _measure(recipe: Recipe, steps: int) -> Measured:
    device = choose_device(recipe)
    if device.type == "cpu":
        keep_freed_memory()
    setup = set_up(recipe, device)
    if not setup.steps:
        raise RecipeError(
            f"adapt.kind: {recipe.adapt.kind!r}: nothing learns by steps, so there is none to time"
        )
    most = recipe.optim.micro_batch or recipe.optim.global_batch
    size = most if device.type == "cuda" else min(most, 64)
    total = total_samples(recipe.optim, len(setup.samples)) // recipe.optim.global_batch
    workers = worker_count(recipe.run.workers, setup.samples, total, 1)
    read = iter(batches(recipe, setup, start=0, end=size * (steps + 2), size=size, workers=0))
    first = next(read)
    precision: str = recipe.optim.precision
    if precision == "auto":
        setup.model.eval()
        inputs = to_device(first, setup.model, recipe)
        precision = measure_precision(
            lambda: compute_objective(recipe.objective, setup.model, inputs).loss, device
        )
    setup.model.train()
    depths = layer_depths(setup.model) if recipe.optim.layer_decay is not None else None
    optimizer = build_optimizer(setup.model, recipe.optim, depths=depths)
    clock = _Clock(device)
    for _ in range(steps + 1):
        batch = clock.timed("data", lambda: next(read), threads=max(1, workers))
        _time_step(clock, recipe, setup, optimizer, batch, precision)
    return Measured(
        {part: median(clock.taken[part][1:]) for part in _PARTS},
        batch=size,
        workers=workers,
        precision=precision,
        device=device.type,
    )


class _Clock:
    """Seconds by part: CPU seconds a thread on a CPU, wall time until it is done on a GPU."""

    def __init__(self, device: torch.device) -> None:
        self.cuda = device.type == "cuda"
        self.taken: dict[str, list[float]] = {part: [] for part in _PARTS}

    def timed(self, part: str, work: Callable[[], _T], *, threads: int | None = None) -> _T:
        wall = self.cuda and part != "data"
        now = time.perf_counter if wall else time.process_time
        started = now()
        result = work()
        if wall:
            torch.cuda.synchronize()
        shared = 1 if wall else threads or torch.get_num_threads()
        self.taken[part].append((now() - started) / shared)
        return result


def _time_step(
    clock: _Clock,
    recipe: Recipe,
    setup: Setup,
    optimizer: torch.optim.Optimizer,
    batch: Batch,
    precision: str,
) -> None:
    model, objective = setup.model, recipe.objective

    def forward() -> tuple[torch.Tensor, torch.Tensor]:
        with autocast(precision, model.device):
            classify = isinstance(objective, ClassifyObjective)
            return model(inputs.images, inputs.tokens, logits=classify)

    def loss_of() -> torch.Tensor:
        if isinstance(objective, ClassifyObjective):
            return classify_loss(objective, outputs[0], inputs.labels, model.logit_scale).loss
        assert inputs.caption_ids is not None
        scale, bias = model.logit_scale, model.logit_bias
        return features_loss(objective, Features(*outputs, scale, bias, inputs.caption_ids)).loss

    optimizer.zero_grad(set_to_none=True)
    inputs = clock.timed("copy", lambda: to_device(batch, model, recipe))
    outputs = clock.timed("forward", forward)
    loss = clock.timed("loss", loss_of)
    clock.timed("backward", loss.backward)
    clock.timed("optimiser", optimizer.step)
