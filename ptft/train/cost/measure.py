"""Where the time of a recipe's step goes on this machine, and what to do about the largest part."""

from dataclasses import dataclass
from statistics import median

from ptft.data import Batch
from ptft.data.reading.loader import worker_count
from ptft.errors import RecipeError
from ptft.model import layer_depths
from ptft.optim import Lbfgs, build_optimizer, total_samples
from ptft.recipe import Recipe
from ptft.train.batches import batches
from ptft.train.cost.clock import PartClock
from ptft.train.device import cpu_threads, keep_freed_memory
from ptft.train.gradients import Step
from ptft.train.parallel import alone
from ptft.train.preflight import choose_precision
from ptft.train.setup import choose_device, set_up

__all__ = ["Measured", "measure_step"]

_STEPS = 5  # timed, after one that is not
_PARTS = ("data", "copy", "forward", "loss", "backward", "optimiser")
_MOST_ON_CPU = 64  # samples of a step that is timed on a CPU, since the parts grow with them alike


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
    """Time the parts of a few steps, as a run takes them, with the recipe's real settings; nothing
    is written.

    On a CPU at most 64 samples a step are timed, since the parts grow with them alike. Of micro
    batches two are timed, of which the first runs forward twice, as all but the last of a batch do;
    ``forward`` has these second passes at the batch's share of them.

    Raises:
        DataError, ModelError, RecipeError: as training would.
    """
    with cpu_threads(recipe.run.threads):
        return _measure(recipe, steps)


def _measure(recipe: Recipe, steps: int) -> Measured:
    device = choose_device(recipe.run)
    if device.type == "cpu":
        keep_freed_memory()
    setup = set_up(recipe, device)
    if not setup.steps:
        raise RecipeError(
            f"adapt.kind: {recipe.adapt.kind!r}: nothing learns by steps, so there is none to time"
        )
    precision = choose_precision(recipe, setup)
    batch = recipe.optim.global_batch
    micro = recipe.optim.micro_batch or batch
    together = min(2, batch // micro)  # micro batches that are timed
    twice = 1 - micro / batch  # share of a batch that runs forward twice
    if device.type == "cpu":
        micro = min(micro, _MOST_ON_CPU // together)
    size = micro * together
    total = total_samples(recipe.optim, len(setup.samples)) // batch
    workers = worker_count(recipe.run.workers, setup.samples, total, 1)
    timed = recipe.optim.model_copy(
        update={"precision": precision, "global_batch": size, "micro_batch": micro}
    )
    clock = PartClock(device)
    setup.model.train()
    step = Step(recipe.objective, timed, alone(setup.model), teacher=setup.teacher, clock=clock)
    depths = layer_depths(setup.model) if recipe.optim.layer_decay is not None else None
    optimizer = build_optimizer(setup.model, recipe.optim, depths=depths)
    read = iter(batches(recipe, setup, start=0, end=size * (steps + 1), size=size, workers=0))
    for _ in range(steps + 1):
        with clock.part("data", threads=max(1, workers)):
            rows = next(read)

        def loss(rows: Batch = rows) -> float:
            optimizer.zero_grad(set_to_none=True)
            return step(rows).loss.item()

        if isinstance(optimizer, Lbfgs):  # whose line search is made of such passes
            optimizer.search(loss(), loss)
        else:
            loss()
            with clock.part("optimiser"):
                optimizer.step()
        clock.lap()
    seconds = {part: median(lap.get(part, 0.0) for lap in clock.laps[1:]) for part in _PARTS}
    again = median(lap.get("again", 0.0) for lap in clock.laps[1:])
    seconds["forward"] += again * together * twice
    return Measured(seconds, batch=size, workers=workers, precision=precision, device=device.type)
