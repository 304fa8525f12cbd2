"""``ptft export``: a run to a model folder that every client reads."""

from pathlib import Path
from typing import Annotated

import typer

from ptft.cli.arguments import local_path

__all__ = ["EXAMPLE", "command"]

EXAMPLE = "ptft export runs/scenes models/scenes"


def command(
    source: Annotated[
        str, typer.Argument(help="A run, a checkpoint, a model folder, or org/repo@revision.")
    ],
    out: Annotated[
        Path, typer.Argument(parser=local_path, metavar="OUT", help="The model folder to write.")
    ],
    name: Annotated[
        str | None, typer.Option("--name", help="Of the model; absent: the run's.")
    ] = None,
    licence: Annotated[
        str | None,
        typer.Option(
            "--license", "--licence", help="For the card, by the Hub's short name: apache-2.0."
        ),
    ] = None,
    examples: Annotated[
        bool,
        typer.Option(
            "--examples", help="Show samples of your data on the card, and what is found nearest."
        ),
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace a model folder that is there.")
    ] = False,
    precision: Annotated[
        str, typer.Option("--precision", help="Of the ONNX towers; fp32 is always written.")
    ] = "fp32,fp16,int8",
    clients: Annotated[
        str, typer.Option("--for", help="Clients to write files for; ptft's own always are.")
    ] = "open_clip,transformers,timm,sentence-transformers,onnx",
    max_loss: Annotated[
        float,
        typer.Option(
            "--max-loss", min=0, help="Points of recall or accuracy that fp16 or int8 may cost."
        ),
    ] = 1.0,
    measure: Annotated[
        bool, typer.Option(help="Run the recipe's evaluations with every ONNX file.")
    ] = True,
) -> None:
    """Write the model folder; every ONNX file is held against the checkpoint. Prints the folder.

    Beyond tolerance nothing is written and the exit code is 1.
    """
    from ptft.cli.console import Steps
    from ptft.export import export_model

    with Steps() as steps:
        export_model(
            source,
            out,
            name=name,
            licence=licence,
            examples=examples,
            overwrite=overwrite,
            precisions=[part.strip() for part in precision.split(",") if part.strip()],
            clients=[part.strip() for part in clients.split(",") if part.strip()],
            max_loss=max_loss,
            measure=measure,
            progress=steps,
            count=steps.count,
        )
    print(out)
