"""What of a recipe's sets goes together: what reads them, and those of stages with each other."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from ptft.recipe import Recipe, StagedRecipe
from ptft.recipe.check import SplitUse
from ptft.recipe.objective import ObjectiveSection, learns_classes

if TYPE_CHECKING:
    from ptft.data.checks.check import Checked

__all__ = ["OF_CLASSES", "of_classes", "stage_problems"]

OF_CLASSES = frozenset(("zero_shot", "probe", "classify"))
"""Kinds of evaluations that ask for classes."""


def of_classes(uses: Sequence[SplitUse], objective: ObjectiveSection | None) -> bool:
    """Whether all that reads a split reads its classes, so that samples without are left out."""
    kinds: set[str] = {use.item.kind if use.item is not None else "" for use in uses}
    return kinds <= (OF_CLASSES | {""} if learns_classes(objective) else OF_CLASSES)


def stage_problems(recipe: Recipe, checked: Sequence["Checked"]) -> Iterator[str]:
    """Sets of other classes than the first stage's, which replay would mix with it."""
    replays = isinstance(recipe, StagedRecipe) and recipe.guard is not None and recipe.guard.replay
    learned = [one for one in checked if one.learned and one.survey.classes]
    for found in learned[1:] if replays else ():
        first, own = learned[0], found.survey.classes or []
        if own == (known := first.survey.classes or []):
            continue
        odd = sorted({*own} ^ {*known})
        what = f"{odd[0]!r} is a class of one of it and {first.label}" if odd else "another order"
        yield (
            f"{found.label}: {what}: guard.replay learns both as one; allowed: data.classes with "
            "the names of all, in each stage, or guard.replay: 0"
        )
