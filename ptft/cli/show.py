"""``ptft show``: a recipe with every default filled in, or the schema of all recipes."""

import json
from typing import Annotated

import typer

from ptft.cli.arguments import Overrides
from ptft.errors import UsageError

__all__ = ["command"]


def command(
    recipe: Annotated[
        str | None, typer.Argument(help="A YAML file, or a built-in recipe (ptft ls).")
    ] = None,
    overrides: Overrides = None,
    schema: Annotated[
        bool, typer.Option("--schema", help="Print the JSON Schema of recipes, for editors.")
    ] = False,
) -> None:
    """Print a recipe, resolved: every default, every override."""
    from ptft.recipe import dump_recipe, load_recipe, recipe_json_schema

    if schema:
        print(json.dumps(recipe_json_schema(), indent=2))
        return
    if recipe is None:
        raise UsageError("show: give a recipe, or --schema")
    print(dump_recipe(load_recipe(recipe, overrides or ())), end="")
