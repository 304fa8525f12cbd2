"""Arguments that several verbs take."""

from typing import Annotated

import typer

__all__ = ["AcceptChanges", "Overrides", "RecipeName"]

RecipeName = Annotated[
    str, typer.Argument(metavar="RECIPE", help="A YAML file, or a built-in recipe (ptft ls).")
]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(metavar="[KEY=VALUE]...", help="Keys to override: optim.lr=1e-4"),
]
AcceptChanges = Annotated[
    bool,
    typer.Option("--accept-changes", help="Go on although the data changed; what did is recorded."),
]
