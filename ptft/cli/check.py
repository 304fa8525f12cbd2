"""``ptft check``: what would stop a recipe, found before it costs anything."""

import json
from typing import Annotated

import typer

from ptft.cli.arguments import Overrides, RecipeName

__all__ = ["command"]


def command(
    recipe: RecipeName,
    overrides: Overrides = None,
    files_only: Annotated[
        bool, typer.Option("--files-only", help="Do not build the model; answers at once.")
    ] = False,
) -> None:
    """Check a recipe: keys, files, data, model; predict the memory a step needs. Prints JSON."""
    from ptft.recipe import check_recipe, load_recipe

    loaded = load_recipe(recipe, overrides or ())
    check_recipe(loaded)
    if files_only:
        print(json.dumps({"recipe": loaded.name, "ok": True}))
        return
    from ptft.train import predict_memory

    print(json.dumps({"recipe": loaded.name, "ok": True, **predict_memory(loaded)}, indent=2))
