"""Arguments that several verbs take."""

from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand

if TYPE_CHECKING:
    from ptft.runs.opening import Resume

__all__ = [
    "AcceptChanges",
    "Overrides",
    "RecipeName",
    "ResumeOption",
    "Signer",
    "Verb",
    "example",
    "local_path",
    "resume_of",
]

_RESUME, _ALONE = "--resume", "run"


class Verb(TyperCommand):
    """A command whose ``--resume`` may stand alone or have a value."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        return super().parse_args(ctx, list(_with_value(args)))


def _with_value(args: list[str]) -> Iterator[str]:
    """Arguments with the value of ``--resume`` joined to it, or the one that it has alone."""
    given = deque(args)
    while given:
        one = given.popleft()
        if one == "--":
            yield one
            yield from given
            return
        if one == _RESUME:
            auto = bool(given) and given[0] == "auto"
            yield f"{_RESUME}={given.popleft() if auto else _ALONE}"
        else:
            yield one


def resume_of(text: str | None) -> "Resume":
    """What ``--resume``, ``--resume auto`` or neither says.

    Raises:
        UsageError: another value.
    """
    from ptft.errors import UsageError

    if text not in (None, _ALONE, "auto"):
        raise UsageError(f"--resume: {text!r}; allowed: auto, or no value")
    return "auto" if text == "auto" else text is not None


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


Signer = Annotated[
    Path | None,
    typer.Option(
        "--require-signature",
        parser=local_path,
        metavar="KEY",
        help="A public key (PEM): a model that it did not sign is refused.",
    ),
]
RecipeName = Annotated[
    str, typer.Argument(metavar="RECIPE", help="A YAML file, or a built-in recipe (ptft ls).")
]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(metavar="[KEY=VALUE]...", help="Keys to override: optim.lr=1e-4"),
]
AcceptChanges = Annotated[
    bool,
    typer.Option(
        "--accept-changes",
        help="Go on although the data or the recipe changed; what did is recorded.",
    ),
]
ResumeOption = Annotated[
    str | None,
    typer.Option(
        "--resume",
        metavar="[auto]",
        help="Go on with the newest run of this recipe (or at run.dir); auto: or begin, where "
        "there is none.",
    ),
]
