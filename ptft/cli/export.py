"""``ptft export``: a run to a model folder that every client reads."""

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["command"]


def command(
    source: Annotated[
        str, typer.Argument(help="A run, a checkpoint, a model folder, or org/repo@revision.")
    ],
    out: Annotated[Path, typer.Argument(help="The model folder to write.")],
    name: Annotated[
        str | None, typer.Option("--name", help="Of the model; absent: the run's.")
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace a model folder that is there.")
    ] = False,
) -> None:
    """Write the model folder; every ONNX file is held against the checkpoint. Prints the folder.

    Beyond tolerance nothing is written and the exit code is 1.
    """
    from ptft.export import export_model

    export_model(source, out, name=name, overwrite=overwrite)
    print(out)
