"""The smallest recipe, changed, and what is wrong with it."""

from typing import Any

import pytest

from ptft.errors import RecipeError
from ptft.recipe import builtin_recipes
from ptft.recipe.load import parse_recipe

__all__ = ["BUILTIN", "OPTIM", "OUT", "problems", "values"]

BUILTIN = [name for name in builtin_recipes() if not name.startswith("compare/")]
OPTIM = {"samples_seen": 4}
OUT = "(left out)"


def values(**changes: Any) -> dict[str, Any]:
    """The smallest recipe, with sections replaced or left out."""
    plain = {
        "name": "small",
        "model": {"name": "ViT-B-32"},
        "data": {"kind": "scenes"},
        "optim": OPTIM,
        **changes,
    }
    return {key: value for key, value in plain.items() if value != OUT}


def problems(**changes: Any) -> list[str]:
    """What loading says of it, a line each."""
    with pytest.raises(RecipeError) as caught:
        parse_recipe(values(**changes), where="mine.yaml")
    lines = str(caught.value).split("\n")
    assert all(line.startswith("mine.yaml: ") for line in lines)
    return [line.removeprefix("mine.yaml: ") for line in lines]
