"""Every split of every data section that a recipe will ever read."""

from collections.abc import Iterable, Iterator
from typing import Literal, NamedTuple

from ptft.recipe.adapt import TipAdapterAdapt
from ptft.recipe.comparison import Comparison
from ptft.recipe.data import DataSection
from ptft.recipe.evaluation import EvaluateItem
from ptft.recipe.objective import ClassifyObjective
from ptft.recipe.schema import Recipe
from ptft.recipe.sequence import StagedRecipe

__all__ = ["Split", "SplitUse", "evaluated_splits", "splits_of"]

Split = Literal["train", "val", "test"]
"""Of a data section."""


class SplitUse(NamedTuple):
    """One reading of a split.

    Attributes:
        key: of the data section in the recipe.
        section: the data section.
        split: of it.
        item: the evaluation that reads it; None: it is learned from, or chosen by.
    """

    key: str
    section: DataSection
    split: Split
    item: EvaluateItem | None


def splits_of(recipe: Recipe) -> Iterator[SplitUse]:
    """The splits that a recipe reads, in the order of its sections; some may come twice."""
    if isinstance(recipe, StagedRecipe):
        for stage in recipe.stages:
            key = f"stages.{stage.name}"
            yield SplitUse(f"{key}.data", stage.data, "train", None)
            yield from _of_item(stage.evaluate, stage.data, f"{key}.data", f"{key}.evaluate.data")
        for number, known in enumerate(recipe.guard.known if recipe.guard else []):
            yield SplitUse(f"guard.known.{number}", known, "train", None)
    else:
        yield SplitUse("data", recipe.data, "train", None)
    if _chooses_by_val(recipe):
        yield SplitUse("data", recipe.data, "val", None)
    yield from evaluated_splits(recipe)
    if isinstance(recipe, Comparison):
        yield from _compared(recipe)


def evaluated_splits(recipe: Recipe) -> Iterator[SplitUse]:
    """Those that its evaluations and its early stopping read."""
    for number, item in enumerate(recipe.evaluate):
        yield from _of_item(item, recipe.data, "data", f"evaluate.{number}.data")
    stop = recipe.stops_early
    yield from _retained(stop.retain if stop else [], "early_stop.retain", ("val",))


def _chooses_by_val(recipe: Recipe) -> bool:
    objective, adapt = recipe.objective, recipe.adapt
    calibrates = isinstance(objective, ClassifyObjective) and objective.calibrate
    return calibrates or (isinstance(adapt, TipAdapterAdapt) and adapt.chooses)


def _compared(comparison: Comparison) -> Iterator[SplitUse]:
    target = comparison.evaluate[0]
    key = "evaluate.0.data" if target.data else "data"
    for split in ("val", "test"):
        yield SplitUse(key, target.data or comparison.data, split, target)
    yield from _retained(comparison.compare.retain, "compare.retain", ("val", "test"))


def _retained(
    items: Iterable[EvaluateItem], key: str, splits: tuple[Split, ...]
) -> Iterator[SplitUse]:
    for number, item in enumerate(items):
        if item.data is None:
            continue  # a comparison says so when it begins
        probes: tuple[Split, ...] = ("train",) if item.kind == "probe" else ()
        for split in (*probes, *splits):
            yield SplitUse(f"{key}.{number}.data", item.data, split, item)


def _of_item(
    item: EvaluateItem, data: DataSection, data_key: str, own_key: str
) -> Iterator[SplitUse]:
    section, key = (item.data, own_key) if item.data else (data, data_key)
    if item.kind == "probe":
        yield SplitUse(key, section, "train", item)
    yield SplitUse(key, section, item.split, item)
