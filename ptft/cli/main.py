"""The ``ptft`` command: one module a verb, imported when the verb is called.

Results go to stdout, logs and progress to stderr. Exit 0 success, 1 failure, 2 usage or recipe,
75 when a run is out of time (or SIGUSR1 or SIGUSR2 warned it), 143 when SIGTERM and 130 when Ctrl-C
stopped it, each after a checkpoint, 76 when another machine of the run is gone: at 75, 76 and 143
start it again with --resume auto.
"""

import importlib
import os
import signal
from typing import Annotated

import typer

from ptft import __version__
from ptft.cli.arguments import Verb, example
from ptft.cli.speech import LogFormat, fail, listen
from ptft.errors import PtftError

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
    "Train and compare": ("train", "launch", "evaluate", "predict", "compare", "mix"),
    "Model folder and Hub": ("export", "index", "sbom", "sign", "push", "pull", "verify", "gate"),
}
GROUPS = ("data",)  # each has verbs of its own
VERBS = tuple(verb for verbs in STAGES.values() for verb in verbs if verb not in GROUPS)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(__version__)
        raise typer.Exit


@app.callback()
def _options(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print it.")
    ] = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="Say nothing but warnings and errors.")
    ] = False,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Say each report of progress, too.")
    ] = False,
    log_format: Annotated[
        LogFormat, typer.Option(help="Of what is said on stderr: a line, or a JSON object a line.")
    ] = LogFormat.TEXT,
) -> None:
    context.call_on_close(listen(log_format, quiet=quiet, verbose=verbose))


for _stage, _verbs in STAGES.items():
    for _verb in _verbs:
        _module = importlib.import_module(f"ptft.cli.{_verb}")
        if _verb in GROUPS:
            app.add_typer(_module.app, name=_verb, rich_help_panel=_stage)
        else:
            _add = app.command(
                _verb, cls=Verb, rich_help_panel=_stage, epilog=example(_module.EXAMPLE)
            )
            _add(_module.command)


def main() -> None:
    """Run the command; an error that ptft raises on purpose is one message and an exit code."""
    if os.getpid() == 1:  # in a container: what has no handler there, the kernel passes over
        signal.signal(signal.SIGTERM, lambda number, frame: os._exit(128 + number))
    try:
        app()
    except PtftError as error:
        fail(str(error), exit_code=error.exit_code)
        raise SystemExit(error.exit_code) from None
