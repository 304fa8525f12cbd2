"""What the loss of a classifier's samples is multiplied by, by their classes."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ptft.errors import RecipeError, suggest
from ptft.recipe import ClassifyObjective

__all__ = ["class_weights"]


def class_weights(
    section: ClassifyObjective,
    classes: Sequence[str],
    counts_c: NDArray[np.int64] | None,
    samples: int | None = None,
) -> Tensor | None:
    """The weight of each class, float32 (C,); None where all weigh the same.

    Args:
        counts_c: training samples of each class; None where they cannot be read alone.
        samples: of which each has any number of the classes; None: each has one.

    Raises:
        RecipeError: a name is no class, or there is nothing to count.
    """
    wanted = section.class_weights
    if wanted is None:
        return None
    if wanted == "balanced":
        if counts_c is None:
            raise RecipeError(
                "objective.class_weights: 'balanced': the labels of data.train cannot be read "
                "without its pictures; allowed: weights by name"
            )
        if samples is not None:
            weights_c = (samples - counts_c) / np.maximum(counts_c, 1)
            return torch.tensor(np.where(counts_c, weights_c, 1.0)).float()
        return torch.tensor(counts_c.sum() / (len(classes) * np.maximum(counts_c, 1))).float()
    for name in wanted:
        if name not in classes:
            raise RecipeError(f"objective.class_weights: {name!r}: {suggest(name, classes)}")
    return torch.tensor([wanted.get(name, 1.0) for name in classes])
