"""``ptft train``: pretrain or fine-tune, whichever the recipe says."""

import typer

from ptft.cli.arguments import AcceptChanges, Overrides, RecipeName, ResumeOption, resume_of

__all__ = ["EXAMPLE", "command"]

EXAMPLE = """\
ptft train pretrain/scenes run.dir=runs/scenes
ptft train pretrain/scenes run.dir=runs/scenes --resume auto"""


def command(
    recipe: RecipeName,
    overrides: Overrides = None,
    resume: ResumeOption = None,
    accept_changes: AcceptChanges = False,
) -> None:
    """Run a recipe. Prints the run folder.

    A first SIGTERM, SIGUSR1, SIGUSR2 or Ctrl-C saves a checkpoint and stops (exit codes 143, 75, 75
    and 130). --resume goes on from there, with the weights that an uninterrupted run would have;
    --resume auto both starts a run and goes on with it. Data and recipes that are not those that
    the run began with are refused, unless told to --accept-changes.
    """
    from ptft.errors import UsageError
    from ptft.recipe import check_recipe, load_recipe

    going_on = resume_of(resume)
    if accept_changes and not going_on:
        raise UsageError("--accept-changes: of a run that goes on; allowed: with --resume")
    loaded = load_recipe(recipe, overrides or ())
    check_recipe(loaded)  # before seconds go into imports
    from ptft.sequence import run_recipe
    from ptft.train import exit_code

    result = run_recipe(loaded, resume=going_on, accept_changes=accept_changes)
    if result.first:  # of the ranks of torchrun one tells
        print(result.folder)
    raise typer.Exit(exit_code(result))
