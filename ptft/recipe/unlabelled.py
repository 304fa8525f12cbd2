"""What a recipe does of pictures without labels: a teacher gives them some, or none are needed."""

from typing import TYPE_CHECKING

from pydantic import Field

from ptft.recipe.data import MixtureData
from ptft.recipe.objective import ClassifyObjective, SelfSupervisedObjective
from ptft.recipe.section import Section

if TYPE_CHECKING:
    from ptft.recipe.schema import Recipe

__all__ = ["SelfTrainSection", "unlabelled_problem", "views_problem"]


class SelfTrainSection(Section):
    """Learn from the pictures of ``data.unlabelled`` what a tuned teacher says of them
    (pseudo-labels, Lee 2013), beside the labelled ones.

    The teacher sees a picture as an evaluation does, the student under ``augment``, which wants to
    be strong (Noisy Student, Xie et al. 2020). Of the pictures that it says are of one class the
    surest are kept, so that each class has a threshold of its own and none is crowded out by what
    is easy (class-balanced self-training, Zou et al. 2018). The labels are given once, before the
    first step, by the teacher's head, which has the classes of ``data``.
    """

    from_: str = Field(alias="from")
    """The teacher: a run folder, a model folder, or ``org/repo@revision`` on the Hub."""
    keep: float = Field(default=0.5, gt=0.0, le=1.0)
    """Share of the pictures of each class that are kept, the surest of them."""
    share: float = Field(default=0.75, gt=0.0, lt=1.0)
    """Of what a run sees, how much is without a label of its own."""


def unlabelled_problem(recipe: "Recipe") -> str | None:
    """Say what is wrong with what a recipe does of pictures without labels; None: nothing."""
    given = getattr(recipe.data, "unlabelled", None)
    if recipe.self_train is None:
        if given is None:
            return None
        return "data.unlabelled: nothing reads it; allowed: null, or a self_train section"
    objective = recipe.objective
    if not isinstance(objective, ClassifyObjective) or objective.reads != "image":
        return (
            f"self_train: with objective.kind {objective.kind!r}: a teacher labels pictures with "
            "classes; allowed: classify with reads: image"
        )
    if isinstance(recipe.data, MixtureData):
        return "self_train: with data.kind 'mixture'; allowed: one labelled set"
    if given is None:
        return "self_train: data.unlabelled is missing, whose pictures it reads"
    if recipe.adapt.kind == "tip_adapter":
        return "self_train: with adapt.kind 'tip_adapter', which takes no steps; allowed: others"
    return None


def views_problem(recipe: "Recipe") -> str | None:
    """Say why a batch of a self-supervised recipe would not hold two views of each of its
    pictures; None: it does, or the recipe is of another kind."""
    if not isinstance(recipe.objective, SelfSupervisedObjective):
        return None
    optim, augment = recipe.optim, recipe.augment
    by = "with objective.kind 'self_supervised'"
    if optim.global_batch % 2 or optim.global_batch < 4:
        return (
            f"optim.global_batch: {optim.global_batch} {by}, of which a batch holds two views of "
            "each picture; allowed: an even number, from 4 on"
        )
    if optim.micro_batch is not None:
        return f"optim.micro_batch: {optim.micro_batch} {by}, whose views meet; allowed: null"
    if recipe.distill is not None:
        return f"distill: {by}, which no teacher answers; allowed: null"
    chance = augment.flip or augment.colour_jitter or augment.patch_dropout
    if augment.crop_scale == (1.0, 1.0) and not chance:
        return f"augment: {by}: it leaves nothing to chance, and two views would be one picture"
    return None
