"""The ``ptft`` command: one module a verb, imported when the verb is called.

Results go to stdout, logs and progress to stderr. Exit 0 success, 1 failure, 2 usage or recipe,
128 + n when signal n stopped a run after a checkpoint.
"""

import importlib
import sys
from typing import Annotated

import typer

from ptft import __version__
from ptft.cli.arguments import example
from ptft.errors import PtftError
from ptft.printable import printable

__all__ = ["app", "main"]

app = typer.Typer(
    name="ptft",
    help="Pretrain and fine-tune joint image-text encoders; carry them unchanged to production.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)

STAGES = {
    "Recipes and data": ("ls", "show", "cp", "check", "data"),
    "Train and compare": ("train", "evaluate", "compare", "mix"),
    "Model folder and Hub": ("export", "push", "pull", "verify"),
}
GROUPS = ("data",)  # each has verbs of its own
VERBS = tuple(verb for verbs in STAGES.values() for verb in verbs if verb not in GROUPS)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(__version__)
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print it.")
    ] = False,
) -> None:
    pass


for _stage, _verbs in STAGES.items():
    for _verb in _verbs:
        _module = importlib.import_module(f"ptft.cli.{_verb}")
        if _verb in GROUPS:
            app.add_typer(_module.app, name=_verb, rich_help_panel=_stage)
        else:
            _add = app.command(_verb, rich_help_panel=_stage, epilog=example(_module.EXAMPLE))
            _add(_module.command)


def main() -> None:
    """Run the command; an error that ptft raises on purpose is one message and an exit code."""
    try:
        app()
    except PtftError as error:
        print(f"ptft: {printable(str(error), lines=True)}", file=sys.stderr)
        raise SystemExit(error.exit_code) from None
