"""``ptft cp``: a copy of a recipe, header and all, to edit."""

import shutil
from pathlib import Path
from typing import Annotated

import typer

from ptft.cli.arguments import RecipeName, local_path
from ptft.errors import UsageError

__all__ = ["EXAMPLE", "command"]

EXAMPLE = "ptft cp finetune/classify-clip-vit-b32 shoes.yaml"


def command(
    recipe: RecipeName,
    destination: Annotated[
        Path,
        typer.Argument(
            parser=local_path, metavar="DESTINATION", help="A file, or a folder to put it in."
        ),
    ],
) -> None:
    """Copy a recipe; an existing file is never overwritten. Prints the new file."""
    from ptft.recipe import find_recipe

    source = find_recipe(recipe)
    target = destination / source.name if destination.is_dir() else destination
    if target.exists():
        raise UsageError(f"{target}: exists already; name another file")
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)
    print(target)
