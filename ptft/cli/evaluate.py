"""``ptft evaluate``: what a model measures, as JSON."""

import json
from pathlib import Path
from typing import Annotated

import typer

from ptft.cli.arguments import Overrides, local_path

__all__ = ["EXAMPLE", "command"]

EXAMPLE = "ptft evaluate runs/scenes"


def command(
    model: Annotated[
        str,
        typer.Argument(help="A run, a checkpoint, a model folder, or org/repo@revision."),
    ],
    overrides: Overrides = None,
    recipe: Annotated[
        str | None,
        typer.Option("--recipe", "-r", help="Take data and evaluations from this recipe."),
    ] = None,
    verify: Annotated[
        bool,
        typer.Option(
            "--verify/--no-verify", help="Hold the model's files against what it records of them."
        ),
    ] = True,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", parser=local_path, help="Write the JSON there as well."),
    ] = None,
) -> None:
    """Run the evaluations of a recipe on a model. Prints JSON.

    Without --recipe, those of the recipe that travels with the model. One that is given needs
    nothing but evaluate and the data that it reads.
    """
    from ptft.api import measure
    from ptft.artifact import write_json
    from ptft.cli.console import Steps

    with Steps() as steps:
        metrics = measure(
            model, recipe, overrides or (), verify=verify, tell=steps, count=steps.count
        )
    if output is not None:
        write_json(output, metrics)
    print(json.dumps(metrics, indent=2))
