"""``ptft train``: pretrain or fine-tune, whichever the recipe says."""

from typing import Annotated

import typer

from ptft.cli.arguments import AcceptChanges, Overrides, RecipeName

__all__ = ["EXAMPLE", "command"]

EXAMPLE = """\
ptft train pretrain/scenes run.dir=runs/scenes
ptft train pretrain/scenes run.dir=runs/scenes --resume"""


def command(
    recipe: RecipeName,
    overrides: Overrides = None,
    resume: Annotated[
        bool,
        typer.Option("--resume", help="Go on with the newest run of this recipe (or at run.dir)."),
    ] = False,
    accept_changes: AcceptChanges = False,
) -> None:
    """Run a recipe. Prints the run folder.

    A first SIGTERM or Ctrl-C saves a checkpoint and stops with exit code 128 + the signal's
    number; --resume goes on from there, with the weights that an uninterrupted run would have. It
    refuses data that are not those that the run began with, unless told to --accept-changes.
    """
    from ptft.errors import UsageError
    from ptft.recipe import check_recipe, load_recipe

    if accept_changes and not resume:
        raise UsageError("--accept-changes: of a run that goes on; allowed: with --resume")
    loaded = load_recipe(recipe, overrides or ())
    check_recipe(loaded)  # before seconds go into imports
    from ptft.sequence import run_recipe
    from ptft.train import exit_code

    result = run_recipe(loaded, resume=resume, accept_changes=accept_changes)
    if result.first:  # of the ranks of torchrun one tells
        print(result.folder)
    raise typer.Exit(exit_code(result))
