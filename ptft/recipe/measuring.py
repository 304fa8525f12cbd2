"""A recipe that is only measured by: data and evaluations, and nothing of a training."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ptft.recipe.load import apply_override, parse_recipe, read_values
from ptft.recipe.publication import drop_local
from ptft.recipe.schema import Recipe

__all__ = ["load_evaluation"]


def load_evaluation(
    source: str | Path | Mapping[str, Any],
    overrides: Sequence[str] = (),
    *,
    model: str,
    foreign: bool = False,
) -> Recipe:
    """Read the recipe that ``source`` names to measure a model by. What a training alone needs may
    be left out, and what is given of it is checked as ever.

    Args:
        source, overrides: as of :func:`ptft.recipe.load_recipe`.
        model: what is measured; the recipe's start, where it has none.
        foreign: the recipe is an artefact's, not the user's own (:mod:`ptft.recipe.publication`).

    Raises:
        RecipeError: the file is absent or no YAML mapping, or a key or value is not allowed; or
            there are no data, and an evaluation has none of its own.
    """
    values, where = read_values(source)
    if foreign:
        drop_local(values)
    for override in overrides:
        apply_override(values, override)
    return parse_recipe(values if "stages" in values else _filled(values, model), where)


def _filled(values: Mapping[str, Any], model: str) -> dict[str, Any]:
    """The values with what a training would need, for what is absent."""
    filled = {"name": "evaluation", **values}
    if values.get("model") is None and values.get("init") is None:
        filled["init"] = {"from": model}
    optim = values.get("optim")
    if optim is None or (isinstance(optim, dict) and optim.keys().isdisjoint(_LENGTHS)):
        filled["optim"] = {**(optim or {}), "samples_seen": 1}
    if values.get("objective") is None:
        # it reads no pictures, so that data without any pass; evaluations say what they read
        filled["objective"] = {"kind": "classify", "reads": "text"}
        filled.setdefault("early_stop", None)
    if values.get("data") is None and (own := _own_data(values.get("evaluate"))) is not None:
        filled["data"] = own
    return filled


_LENGTHS = ("samples_seen", "epochs")


def _own_data(items: Any) -> Any:
    """The data of the first evaluation, where all have their own."""
    if not isinstance(items, list) or not items:
        return None
    sections = [item.get("data") if isinstance(item, dict) else None for item in items]
    return None if None in sections else sections[0]
