"""What is tried on a batch before the first step, by the step that a run takes: whether what is
said to learn does, and in which precision it is fastest."""

from collections.abc import Callable

import torch

from ptft.data import Batch
from ptft.model import check_trains, scale_learns
from ptft.recipe import ClipObjective, Recipe, SiglipObjective
from ptft.train.batches import batches
from ptft.train.device import measure_precision
from ptft.train.gradients import Step
from ptft.train.parallel import alone
from ptft.train.setup import Setup

__all__ = ["check_learning", "choose_precision"]

_CHECKED = 16  # samples of the check: enough for different captions, cheap beside a step
_TIMED = 32  # samples of a step that is timed, at most


def check_learning(recipe: Recipe, setup: Setup) -> None:
    """Run the integrity gate on the first samples of a run; nothing is changed by it.

    Raises:
        AdaptError: something that is said to learn does not, or the other way round.
    """
    batch = _first_batch(recipe, setup, max(2, min(recipe.optim.global_batch, _CHECKED)))
    objective = recipe.objective
    if isinstance(
        objective, ClipObjective | SiglipObjective
    ):  # one caption for all would move nothing
        objective = objective.model_copy(update={"multi_positive": False})
    step = Step(objective, recipe.optim, alone(setup.model), teacher=setup.teacher)
    learns = scale_learns(recipe.adapt, recipe.objective)
    check_trains(setup.model, lambda: step(batch), scale_learns=learns)


def choose_precision(recipe: Recipe, setup: Setup) -> str:
    """The recipe's precision, measured on a batch of its own where it says ``auto``.

    Weights and random numbers are left as they were.
    """
    if recipe.optim.precision != "auto":
        return recipe.optim.precision
    if not setup.steps:
        return "fp32"
    rng = torch.get_rng_state()
    model = setup.model
    batch = _first_batch(recipe, setup, min(recipe.optim.global_batch, _TIMED))
    model.eval()  # batch statistics must not move; timing hardly differs

    def stepping(precision: str) -> Callable[[], object]:
        optim = recipe.optim.model_copy(update={"precision": precision})
        step = Step(recipe.objective, optim, alone(model), teacher=setup.teacher)
        return lambda: step(batch)

    both = {"fp32": stepping("fp32"), "bf16": stepping("bf16")}
    precision = measure_precision(both, model.device)
    model.zero_grad(set_to_none=True)
    torch.set_rng_state(rng)
    return precision


def _first_batch(recipe: Recipe, setup: Setup, size: int) -> Batch:
    """The first samples of a run; the random numbers are left as they were."""
    rng = torch.get_rng_state()  # which the loader draws from
    batch = next(iter(batches(recipe, setup, start=0, end=size, size=size, workers=0)))
    torch.set_rng_state(rng)
    return batch
