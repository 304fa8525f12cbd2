"""Arguments that several verbs take."""

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["AcceptChanges", "Overrides", "RecipeName", "example", "local_path"]


def example(lines: str) -> str:
    """What the help of a verb ends with: commands as they are typed, one a line."""
    return f"Example:\n{lines}"


def local_path(text: str) -> Path:
    """A path that is given on the command line.

    Raises:
        UsageError: it is an address, which as a path would be a folder called ``s3:``.
    """
    from ptft.errors import UsageError
    from ptft.recipe.paths import is_url

    if is_url(text):
        raise UsageError(f"{text!r}: an address; allowed: a local path")
    return Path(text)


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
