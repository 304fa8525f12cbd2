"""``ptft evaluate``: what a model measures, as JSON."""

import json
from pathlib import Path
from typing import Annotated

import typer

from ptft.cli.arguments import Overrides, local_path

__all__ = ["EXAMPLE", "command"]

EXAMPLE = """\
ptft evaluate runs/scenes --beside runs/tuned --page both.html
ptft evaluate models/shoes --per-class --page shoes.html"""

_PerClass = Annotated[
    bool,
    typer.Option("--per-class", help="Print recall, precision and F1 of every class as well."),
]


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
    beside: Annotated[
        list[str] | None,
        typer.Option(
            "--beside",
            metavar="MODEL",
            help="Another model, measured by the same evaluations and held against the first; "
            "again for more.",
        ),
    ] = None,
    page: Annotated[
        Path | None,
        typer.Option(
            "--page",
            parser=local_path,
            help="Write a page there: figures, what each model finds nearest, digests; of "
            "classes which are taken for which, how sure it is, and its worst mistakes; of boxes "
            "the pictures with what is there and what was found.",
        ),
    ] = None,
    per_class: _PerClass = False,
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
    nothing but evaluate and the data that it reads. With --beside the figures stand under the name
    of each model.
    """
    from ptft.api import measure_beside
    from ptft.artifact import write_json
    from ptft.cli.console import Steps

    with Steps() as steps:
        found = measure_beside(
            [model, *(beside or ())],
            recipe,
            overrides or (),
            page=page,
            per_class=per_class,
            verify=verify,
            tell=steps,
            count=steps.count,
        )
    metrics = found if beside else found[model]
    if output is not None:
        write_json(output, metrics)
    print(json.dumps(metrics, indent=2))
