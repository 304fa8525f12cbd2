"""``ptft compare``: which way to a model wins in a domain, at which number of labels."""

from typing import Annotated

import typer

from ptft.cli.arguments import AcceptChanges, Overrides, RecipeName, ResumeOption, resume_of

__all__ = ["EXAMPLE", "command"]

EXAMPLE = """\
ptft compare compare/scenes init.from=runs/scenes
ptft compare runs/compare-scenes --again compare.margin=0.02"""

_Again = Annotated[
    bool,
    typer.Option(
        "--again",
        help="Train nothing: choose again among the finished cells, write the report anew and "
        "print why; compare.confidence, compare.margin, compare.retention and "
        "compare.retention_probability may be others.",
    ),
]
_Summary = Annotated[
    bool,
    typer.Option(
        "--summary",
        help="Train nothing: print one table of several comparisons, named by recipe or folder.",
    ),
]


def command(
    recipe: RecipeName,
    overrides: Overrides = None,
    max_minutes: Annotated[
        float | None,
        typer.Option("--max-minutes", min=0.0, help="Start nothing new after so many minutes."),
    ] = None,
    worker: Annotated[
        bool,
        typer.Option(
            "--worker",
            help="Share the cells with other processes that run this command, here or on other "
            "machines, by run.dir on a shared disk or by run.mirror.",
        ),
    ] = False,
    lease: Annotated[
        float,
        typer.Option(
            "--lease",
            min=1.0,
            max=86_400.0,
            help="Seconds without a sign of this process after which others do what it was at.",
        ),
    ] = 60.0,
    resume: ResumeOption = None,
    accept_changes: AcceptChanges = False,
    again: _Again = False,
    summary: _Summary = False,
) -> None:
    """Compare arms at label budgets and seeds. Prints the folder with report.html and report.md.

    Stopped or killed, it goes on from the finished cells when the same command is run again, with
    --resume auto or without; with data that changed meanwhile, only if told to --accept-changes.
    It then ends with 143 or 130 by the signal, and with 75 where --max-minutes left cells.
    Seeds, budgets, arms and trials may be added: what is finished stays. recommended.yaml in the
    folder trains what won on all labels.
    """
    if again or summary:
        print(_told(recipe, overrides or [], again=again))
        return
    resume_of(resume)  # either way it is what a comparison does
    from ptft.recipe import check_recipe, load_comparison

    loaded = load_comparison(recipe, overrides or ())
    check_recipe(loaded)
    from ptft.compare import compare

    outcome = compare(
        loaded,
        max_minutes=max_minutes,
        accept_changes=accept_changes,
        worker=worker,
        lease=lease,
    )
    print(outcome.folder)
    raise typer.Exit(outcome.exit_code)


def _told(first: str, more: list[str], *, again: bool) -> str:
    """What --again or --summary prints."""
    from ptft.compare.again import explain_again, summarise
    from ptft.errors import UsageError

    if again:
        return explain_again(first, more)
    if overrides := [one for one in more if "=" in one]:
        raise UsageError(f"--summary: {overrides[0]!r}; allowed: recipes, folders of comparisons")
    return summarise([first, *more])
