"""``ptft show``: a recipe with every default filled in, or the schema of all recipes."""

import json
import sys
from typing import Annotated

import typer

from ptft.cli.arguments import Overrides
from ptft.errors import UsageError

__all__ = ["EXAMPLE", "command"]

EXAMPLE = "ptft show finetune/scenes-line optim.lr=1e-4"


def command(
    recipe: Annotated[
        str | None, typer.Argument(help="A YAML file, or a built-in recipe (ptft ls).")
    ] = None,
    overrides: Overrides = None,
    schema: Annotated[
        bool, typer.Option("--schema", help="Print the JSON Schema of recipes, for editors.")
    ] = False,
    launch_schema: Annotated[
        bool, typer.Option("--launch-schema", help="The same of launch files (ptft launch).")
    ] = False,
    published: Annotated[
        bool,
        typer.Option("--published", help="Without folders of this machine, as an export has it."),
    ] = False,
) -> None:
    """Print a recipe, resolved: every default, every override.

    With --published it is what may be shown to others; stderr says which keys lost their folders.
    """
    from ptft.recipe import dump_recipe, recipe_json_schema
    from ptft.recipe.load import load_any
    from ptft.recipe.publication import published_recipe

    if schema:
        print(json.dumps(recipe_json_schema(), indent=2))
        return
    if launch_schema:
        from ptft.launch import launch_json_schema

        print(json.dumps(launch_json_schema(), indent=2))
        return
    if recipe is None:
        raise UsageError("show: give a recipe, --schema or --launch-schema")
    loaded = load_any(recipe, overrides or ())
    if published:
        loaded, changed = published_recipe(loaded)
        if changed:
            keys = ", ".join(changed)
            print(f"ptft: note: without the folders and keys in {keys}", file=sys.stderr)
    print(dump_recipe(loaded), end="")
