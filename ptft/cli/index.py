"""``ptft index``: pictures of a folder as an index that the service searches."""

from pathlib import Path
from typing import Annotated

import typer

from ptft.cli.arguments import local_path

__all__ = ["EXAMPLE", "command"]

EXAMPLE = "ptft index models/shoes photos shoes.index --thumbnails 128"


def command(
    model: Annotated[
        Path, typer.Argument(parser=local_path, metavar="FOLDER", help="A model folder.")
    ],
    pictures: Annotated[
        Path,
        typer.Argument(
            parser=local_path, metavar="PICTURES", help="A folder; those within it count too."
        ),
    ],
    out: Annotated[
        Path, typer.Argument(parser=local_path, metavar="INDEX", help="The folder to write.")
    ],
    precision: Annotated[
        str, typer.Option(help="Of the ONNX files that embed, as PTFT_PRECISION of the service.")
    ] = "fp32",
    thumbnails: Annotated[
        int,
        typer.Option(
            min=0, max=512, help="Pixels of their longer side, for the service's page; 0: none."
        ),
    ] = 0,
    threads: Annotated[
        int | None, typer.Option(min=1, help="Of onnxruntime; absent: as many as CPUs.")
    ] = None,
) -> None:
    """Embed pictures with a model folder, for PTFT_INDEX of the service. Prints the index.

    It belongs to this model: a service of another digest or precision refuses it. A picture that
    cannot be read is named and left out.
    """
    import os

    from ptft.cli.console import Steps
    from ptft.index.build import index_pictures

    with Steps() as steps:
        steps("embedding")
        made = index_pictures(
            model,
            pictures,
            out,
            precision=precision,
            thumbnails=thumbnails,
            threads=threads or os.cpu_count() or 1,
            count=steps.count,
        )
    print(f"{out}: {made.count} pictures, {made.dim} dimensions, {made.digest}")
