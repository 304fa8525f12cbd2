"""What a detector learns from, looked at before it costs anything."""

from collections.abc import Sequence

from ptft.data.open import open_val
from ptft.data.sample import SampleSet
from ptft.errors import DataError
from ptft.recipe import DetectObjective, Recipe

__all__ = ["box_classes", "check_counted"]


def box_classes(samples: SampleSet, key: str = "data.train") -> list[str]:
    """Names of what the boxes of a set mark.

    Raises:
        DataError: it has no boxes.
    """
    if not samples.box_classes:
        raise DataError(
            f"{key}: nothing is marked in these pictures, and objective.kind 'detect' learns from "
            "boxes; allowed: data.kind boxes or scenes, or data.boxes, the field that says them"
        )
    return list(samples.box_classes)


def check_counted(recipe: Recipe, known: Sequence[str]) -> None:
    """Hold what ``val`` marks against the classes that training does, where counting is chosen on
    it; no picture is read.

    Raises:
        DataError: it marks none of them.
    """
    if not (isinstance(recipe.objective, DetectObjective) and recipe.objective.count):
        return
    marked = open_val(recipe.data, None, seed=recipe.seed).box_classes or ()
    if not set(marked) & set(known):
        raise DataError(
            f"objective.count: data.val marks none of the classes of training "
            f"({', '.join(known[:8])}{', ...' if len(known) > 8 else ''})"
        )
