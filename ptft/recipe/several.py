"""What a recipe may ask of samples that have several classes each, ``data.labels: many``."""

from collections.abc import Sequence
from typing import Protocol

from ptft.recipe.adapt import TipAdapterAdapt
from ptft.recipe.data import DataSection, has_many_labels
from ptft.recipe.evaluation import ClassifyEvaluation, EvaluateItem, ProbeEvaluation
from ptft.recipe.objective import (
    ClassifyObjective,
    ClipObjective,
    ObjectiveSection,
    SiglipObjective,
)

__all__ = ["check_several"]


class _Whole(Protocol):
    """What is read of a recipe, which is made of this module."""

    @property
    def data(self) -> DataSection: ...
    @property
    def objective(self) -> ObjectiveSection: ...
    @property
    def adapt(self) -> object: ...
    @property
    def distill(self) -> object: ...
    @property
    def self_train(self) -> object: ...
    @property
    def early_stop(self) -> object: ...
    @property
    def evaluate(self) -> Sequence[EvaluateItem]: ...


def check_several(recipe: _Whole) -> None:
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


def _check_learning(recipe: _Whole) -> None:
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
