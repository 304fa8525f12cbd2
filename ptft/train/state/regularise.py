"""The pull towards the weights that a run starts from (L2-SP; Li et al. 2018).

The penalty is lambda * sum ||w - w0||^2, without the factor of one half. Its gradient is added by
hand to that of the loss, once a step and in the weights' own precision, so that it costs no graph,
is the same for any number of micro batches, and never passes through a loss scale.

A checkpoint holds no w0: a resumed run builds its start again before it reads the checkpoint, and
the same recipe gives the same start.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from ptft.data import SampleSet
from ptft.distributed import World
from ptft.errors import RecipeError
from ptft.files.tensors import is_sharded, local_part
from ptft.recipe import ClassifyObjective, ObjectiveSection, Recipe, TowersModel
from ptft.train.setup import Setup

__all__ = ["Pull", "pull_to_start"]

_NEVER = ("logit_scale", "logit_bias")  # two numbers that follow the loss, not the features


class Pull:
    """What pulls learning weights back to where they are when it is made.

    A sharded tensor (DTensor) is held shard by shard, since the penalty is a sum over elements.

    Args:
        weights: what is held, by name; each requires a gradient.
        strength: lambda, above 0.
    """

    def __init__(self, weights: Mapping[str, Tensor], strength: float) -> None:
        self.names = tuple(weights)
        self.strength = strength
        self._weights = list(weights.values())
        self._sharded = is_sharded(self._weights)
        # as they are laid out (channels-last, sharded), since they are subtracted at every step
        self._start = [local_part(weight).clone() for weight in self._weights]

    def __str__(self) -> str:
        return f"{len(self.names)} tensors are held to their start by {self.strength:.3g}"

    @torch.no_grad()
    def add_gradients(self, world: World) -> Tensor:
        """Add 2 * lambda * (w - w0) to the gradients, which are no longer scaled.

        A weight without a gradient is left so: nothing moves it.

        Returns:
            The penalty, of all ranks' shards together: float64, 0-d, on the device.
        """
        squares: list[Tensor] = []
        for weight, start in zip(self._weights, self._start, strict=True):
            moved = local_part(weight) - start
            squares.append(moved.square().sum(dtype=torch.float64))
            if weight.grad is not None:
                local_part(weight.grad).add_(moved, alpha=2.0 * self.strength)
        penalty = self.strength * torch.stack(squares).sum()
        return world.sum_(penalty) if self._sharded else penalty


def pull_to_start(recipe: Recipe, setup: Setup) -> Pull:
    """The pull of a recipe with ``regularise`` towards the weights as they stand.

    Call it before a checkpoint is read.

    Raises:
        RecipeError: all that learns starts at random.
    """
    assert recipe.regularise is not None, "only whoever asks for it is held"
    start = recipe.regularise.start
    held = {
        name: weight
        for name, weight in setup.model.named_parameters()
        if weight.requires_grad and _has_start(name, recipe, setup)
    }
    if not held:
        raise RecipeError(
            f"regularise.start: {start}: all that learns starts at random; allowed: weights to "
            "start from (init.from, model.pretrained, model.image_weights), or no such section"
        )
    return Pull(held, _one_over(recipe.objective, setup.samples) if start == "auto" else start)


def _one_over(objective: ObjectiveSection, samples: SampleSet) -> float:
    """1 / N of N samples; of a classifier, of N samples a class, the shots of ProLIP."""
    classify = isinstance(objective, ClassifyObjective)
    return (len(samples.classes or [1]) if classify else 1) / len(samples)


def _has_start(name: str, recipe: Recipe, setup: Setup) -> bool:
    """Whether a weight of that name begins at anything but chance."""
    if name in _NEVER:
        return False
    section = None if recipe.init is not None else recipe.model
    image = text = projections = True
    if isinstance(section, TowersModel):
        image, projections = section.image_weights is not None, False
        text = isinstance(section.text, str) and section.text_weights
    elif section is not None:
        image = text = projections = section.pretrained is not None
    if name.startswith("detector."):
        return False
    if name.startswith("head."):
        # prompts through a text tower of chance are chance, too
        prompts = getattr(recipe.objective, "head", None) == "prompts"
        return not setup.random_head and (text or not prompts)
    if name.startswith("image.trunk."):
        return image
    return text if name.startswith("text.transformer.") else projections
