"""``ptft evaluate``: what a model measures, as JSON."""

import json
from pathlib import Path
from typing import Annotated

import typer

from ptft.cli.arguments import Overrides, local_path

__all__ = ["command"]


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
    from ptft.artifact import RunFiles, write_json
    from ptft.errors import UsageError
    from ptft.recipe import check_evaluations, load_evaluation

    foreign = recipe is None  # a recipe that is not named may be anybody's
    if recipe is None:
        beside = [Path(model) / RunFiles.RECIPE, Path(model).parent / RunFiles.RECIPE]
        found = next((path for path in beside if path.is_file()), None)
        if found is None:
            raise UsageError(f"{model}: no {RunFiles.RECIPE} beside it; give --recipe")
        recipe = str(found)
    loaded = load_evaluation(recipe, overrides or (), model=model, foreign=foreign)
    if not loaded.evaluate:
        raise UsageError(f"{recipe}: evaluate: empty; name what to measure")
    check_evaluations(loaded)
    from ptft.evaluate import evaluate
    from ptft.model import load_model
    from ptft.progress import Steps
    from ptft.runs.folder import note_test_read, read_run

    if (Path(model) / RunFiles.RUN).is_file():
        note_test_read(Path(model), read_run(Path(model)), loaded.evaluate, by="evaluate")
    with Steps() as steps:
        steps(f"reading {model}")
        read = load_model(model, verify=verify)
        steps(f"measuring it by {', '.join(item.label for item in loaded.evaluate)}")
        metrics = evaluate(
            read, loaded.evaluate, loaded.data, seed=loaded.seed, progress=steps.count, tell=steps
        )
    if output is not None:
        write_json(output, metrics)
    print(json.dumps(metrics, indent=2))
