"""A stage of a sequence -> the recipe that it stands for."""

import math
from collections.abc import Sequence
from typing import Any

from ptft.recipe.data import DataSection, has_split
from ptft.recipe.load import parse_recipe, set_key
from ptft.recipe.schema import Recipe
from ptft.recipe.section import LONGEST_NAME
from ptft.recipe.sequence import StagedRecipe, StageSection

__all__ = ["stage_recipe"]

_UNIT = 1.0  # of an earlier set's weight in a mixture


def stage_recipe(
    sequence: StagedRecipe, number: int, *, start: str | None, folder: str, samples: int = 1
) -> Recipe:
    """The recipe of stage ``number``, from 0.

    Args:
        start: the model that it goes on from; None: what the sequence itself starts from.
        folder: where its run is to lie.
        samples: of its own training set, which ``optim.epochs`` counts in.

    Raises:
        RecipeError: ``set`` names what a recipe does not have, or what that makes is none.
    """
    stage, guard = sequence.stages[number], sequence.guard
    values = sequence.model_dump(
        mode="json", by_alias=True, exclude={"stages", "guard", "metric", "evaluate"}
    )
    values["name"] = f"{sequence.name}-{stage.name}"[:LONGEST_NAME]
    values["data"] = stage.data.model_dump(mode="json")
    watched = _watched(stage)
    values["evaluate"] = [] if watched is None else [watched]
    if start is not None:
        values |= {"model": None, "init": {"from": start}}
    for key, value in stage.set.items():
        set_key(values, key, value, what=f"stages.{stage.name}.set")
    values["run"] |= {"dir": folder, "mirror": None}  # the sequence's mirror has all of it
    trained = start is not None or sequence.starts_trained
    if guard is not None:
        _guard(values, sequence, number, trained=trained, samples=samples)
    _stop(values, stage, trained=trained)
    return parse_recipe(values, where=f"stages.{stage.name}")


def _watched(stage: StageSection) -> dict[str, Any] | None:
    """What a stage's run looks at as it learns: its figure on ``val``, where there is one. What the
    table shows is measured after the stage, on whatever split it says."""
    found = next(
        (d for d in (stage.evaluate.data, stage.data) if d is not None and has_split(d, "val")),
        None,
    )
    if found is None:
        return None
    item = stage.evaluate.model_copy(update={"name": stage.name, "split": "val", "data": found})
    return item.model_dump(mode="json")


def _stop(values: dict[str, Any], stage: StageSection, *, trained: bool) -> None:
    """Early stopping, by the stage's own figure, where the recipe has it."""
    section = values["early_stop"]
    if not values["evaluate"] or (section == "auto" and not trained):
        values["early_stop"] = None
    elif section is not None:
        values["early_stop"] = {**({} if section == "auto" else section), "target": stage.name}


def _guard(
    values: dict[str, Any], sequence: StagedRecipe, number: int, *, trained: bool, samples: int
) -> None:
    guard = sequence.guard
    assert guard is not None
    earlier = [*guard.known, *(stage.data for stage in sequence.stages[:number])]
    if guard.replay and earlier:
        values["data"] = _replayed(values["data"], earlier, guard.replay)
        optim = values["optim"]
        seen = optim["samples_seen"]
        if seen is None:
            seen = math.ceil(optim["epochs"] * samples)
        optim |= {"samples_seen": math.ceil(seen / (1.0 - guard.replay)), "epochs": None}
    source = (values["init"] or {}).get("from")
    if guard.distill and trained and source is not None:
        values["distill"] = {"from": source, "weight": guard.distill}
    if guard.pull and trained:
        values["regularise"] = {"start": guard.pull}


def _replayed(own: dict[str, Any], earlier: Sequence[DataSection], share: float) -> dict[str, Any]:
    """A mixture of a stage's own set and, at ``share`` of the draws, of earlier ones."""
    parts = [
        part
        for number, section in enumerate(earlier)
        for part in _parts(section.model_dump(mode="json"), _UNIT, f"earlier{number}")
    ]
    weight = len(earlier) * _UNIT * (1.0 - share) / share
    return {
        "kind": "mixture",
        "max_skipped": own.get("max_skipped", 0.01),
        "parts": [*_parts(own, weight, "own"), *parts],
    }


def _parts(section: dict[str, Any], weight: float, name: str) -> list[dict[str, Any]]:
    """A set, or each part of a mixture, as parts of a larger one that weigh ``weight`` together."""
    alone: list[dict[str, Any]] = [{"data": section, "weight": 1.0}]
    inner = section["parts"] if section["kind"] == "mixture" else alone
    whole = sum(part["weight"] for part in inner)
    return [
        {
            "data": {key: value for key, value in part["data"].items() if key != "max_skipped"},
            "weight": weight * part["weight"] / whole,
            "name": name if len(inner) == 1 else f"{name}.{index}",
        }
        for index, part in enumerate(inner)
    ]
