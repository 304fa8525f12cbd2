"""``ptft ls``: the recipes that come with ptft, or the architectures a recipe may name."""

from typing import Annotated

import typer

__all__ = ["EXAMPLE", "command"]

EXAMPLE = "ptft ls"


def command(
    architectures: Annotated[
        bool, typer.Option("--architectures", help="List open_clip's architectures instead.")
    ] = False,
    towers: Annotated[
        str, typer.Option("--towers", metavar="PART", help="List timm image towers with PART.")
    ] = "",
) -> None:
    """List the built-in recipes, with the first line of each one's header."""
    from ptft.recipe import builtin_recipes
    from ptft.recipe.check import open_clip_architectures, timm_architectures

    if architectures:
        print("\n".join(open_clip_architectures()))
        return
    if towers:
        print("\n".join(name for name in timm_architectures() if towers in name))
        return
    recipes = builtin_recipes()
    width = max(map(len, recipes), default=0)
    for name, path in recipes.items():
        first = path.read_text(encoding="utf-8").partition("\n")[0].removeprefix("#").strip()
        print(f"{name:<{width}}  {first}")
