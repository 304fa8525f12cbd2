"""``ptft sbom``: what a model is made of."""

from pathlib import Path
from typing import Annotated

import typer

from ptft.cli.arguments import local_path

__all__ = ["EXAMPLE", "command"]

EXAMPLE = "ptft sbom models/scenes"


def command(
    folder: Annotated[Path, typer.Argument(parser=local_path, metavar="FOLDER")],
) -> None:
    """Write the bill of materials of a model folder: files, data, base, licence. Prints its path.

    CycloneDX 1.6 JSON, model.cdx.json, which ptft push sends along. Write it before you sign.
    """
    from ptft.export.bom import write_bill

    print(write_bill(folder))
