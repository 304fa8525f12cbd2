"""What a recipe may ask of samples that have no label, or several classes each.

A teacher labels pictures without a label, or none is needed; several classes a sample are
``data.labels: many``.
"""

from typing import TYPE_CHECKING

from pydantic import Field

from ptft.recipe.adapt import TipAdapterAdapt
from ptft.recipe.data import DataSection, MixtureData, has_many_labels, without_captions
from ptft.recipe.evaluation import ClassifyEvaluation, ProbeEvaluation
from ptft.recipe.objective import (
    ClassifyObjective,
    ClipObjective,
    SelfSupervisedObjective,
    SiglipObjective,
)
from ptft.recipe.section import Section

if TYPE_CHECKING:
    from ptft.recipe.schema import Recipe

__all__ = [
    "SelfTrainSection",
    "check_several",
    "learned_data",
    "unlabelled_problem",
    "views_problem",
]


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


def learned_data(recipe: "Recipe") -> DataSection:
    """The data section as training reads it: of pictures alone without captions, so that they need
    none."""
    alone = isinstance(recipe.objective, SelfSupervisedObjective)
    return without_captions(recipe.data) if alone else recipe.data


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


def check_several(recipe: "Recipe") -> None:
    """Refuse what means nothing where a sample has several classes.

    Raises:
        ValueError: naming the key, its value and what is allowed.
    """
    data, objective = recipe.data, recipe.objective
    evaluate = [*recipe.evaluate, *getattr(recipe.early_stop, "retain", ())]
    many = has_many_labels(data)
    if many:
        _check_learning(recipe)
    for number, item in enumerate(evaluate):
        section, where = item.data or data, f"evaluate.{number}"
        if has_many_labels(section) and isinstance(item, ProbeEvaluation):
            raise ValueError(
                f"{where}.kind: 'probe' with data.labels 'many': it fits one class a sample; "
                "allowed: classify, zero_shot, retrieval"
            )
        head = isinstance(item, ClassifyEvaluation) and isinstance(objective, ClassifyObjective)
        if head and has_many_labels(section) != many:
            words = ("one", "many")
            raise ValueError(
                f"{where}.data.labels: {words[not many]!r}, and the head learns {words[many]!r} a "
                f"sample (data.labels); allowed: {words[many]}"
            )


def _check_learning(recipe: "Recipe") -> None:
    objective = recipe.objective
    beside = "with data.labels 'many'"
    if isinstance(objective, ClipObjective | SiglipObjective) and objective.templates:
        raise ValueError(
            f"objective.templates: {objective.templates} {beside}: a caption names one class; "
            "allowed: null, or objective.kind: classify"
        )
    if not isinstance(objective, ClassifyObjective):
        return
    if objective.head == "probe":
        raise ValueError(
            f"objective.head: 'probe' {beside}: it fits one class each; allowed: prompts, random"
        )
    if objective.calibrate:
        raise ValueError(
            f"objective.calibrate: true {beside}, where a threshold for each class is chosen on "
            "data.val in its place; allowed: false"
        )
    if isinstance(recipe.adapt, TipAdapterAdapt):
        raise ValueError(
            f"adapt.kind: 'tip_adapter' {beside}: it remembers pictures by one class; allowed: "
            "another kind"
        )
    if recipe.distill is not None or recipe.self_train is not None:
        key = "self_train" if recipe.distill is None else "distill"
        raise ValueError(
            f"{key}: {beside} and objective.kind 'classify': a teacher answers by one class; "
            "allowed: null"
        )
