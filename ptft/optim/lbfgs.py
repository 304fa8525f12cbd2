"""L-BFGS with a line search: a small problem solved on all of its samples, with no rate to tune."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from ptft.errors import RecipeError
from ptft.recipe import OptimSection
from ptft.recipe.optim import LBFGS

__all__ = ["Lbfgs", "check_whole_batch"]

_KEPT = 20  # steps that stand for the curvature


class Lbfgs(torch.optim.LBFGS):
    """torch's, a direction a step, with the strong Wolfe conditions (Nocedal and Wright 2006, 7.2).

    The rate is the length of the first trial, as a share of the weights' norm, and no more: the
    line search goes on from it by as much as the loss allows, and every later trial has the length
    of the direction itself. So short a first trial as torch's own (the rate over the gradient's
    1-norm) would be lost in the rounding of a loss in float32.

    Args:
        groups: one group of parameters.
    """

    def __init__(self, groups: Iterable[dict[str, Any]]) -> None:
        super().__init__(
            groups, max_iter=1, max_eval=100, history_size=_KEPT, line_search_fn="strong_wolfe"
        )

    def search(self, loss: float, evaluate: Callable[[], float]) -> None:
        """One step along the next direction.

        Args:
            loss: at the weights as they stand, whose gradients are on them.
            evaluate: computes both anew wherever the search puts the weights.
        """
        known = [loss]
        group = self.param_groups[0]
        rate = group["lr"]
        begun = bool(self.state[group["params"][0]])
        group["lr"] = 1.0 if begun else rate * _first_length(group["params"])
        try:
            self.step(lambda: known.pop() if known else evaluate())
        finally:
            group["lr"] = rate


@torch.no_grad()
def _first_length(parameters: list[Tensor]) -> float:
    """What torch has to be told for a first trial as long as the weights."""
    gradients = torch.cat([p.grad.flatten() for p in parameters if p.grad is not None])
    weights = torch.cat([p.flatten() for p in parameters])
    norm = max(gradients.norm().item(), torch.finfo(gradients.dtype).tiny)
    # torch takes min(1, 1 / |g|_1) of it times the gradient
    return weights.norm().item() / norm * max(1.0, gradients.abs().sum().item())


def check_whole_batch(section: OptimSection, samples: int, ranks: int) -> None:
    """Check that every step of this line search sees the same loss.

    Args:
        samples: of the training set.
        ranks: processes that train.

    Raises:
        RecipeError: a batch is not the training set, or it is shared out.
    """
    if section.global_batch != samples:
        raise RecipeError(
            f"optim.global_batch: {section.global_batch}, and the training set has {samples:,} "
            f"samples; {LBFGS} needs all of them in every step; allowed: {samples}"
        )
    if ranks > 1:
        raise RecipeError(
            f"optim.optimizer: {LBFGS!r} in {ranks} processes; allowed: one process, or an "
            "optimiser without a line search"
        )
