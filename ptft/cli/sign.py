"""``ptft sign``: vouch for a model folder with a key."""

import os
from pathlib import Path
from typing import Annotated

import typer

from ptft.cli.arguments import local_path

__all__ = ["EXAMPLE", "command"]

EXAMPLE = "ptft sign models/scenes --key key.pem"
_PASSWORD = "PTFT_KEY_PASSWORD"  # noqa: S105 - the name of the variable


def command(
    folder: Annotated[Path, typer.Argument(parser=local_path, metavar="FOLDER")],
    key: Annotated[
        Path,
        typer.Option(
            parser=local_path,
            help=f"A private key (PEM; P-256, P-384 or P-521); its password is {_PASSWORD}'s.",
        ),
    ],
) -> None:
    """Sign a model folder, as OpenSSF Model Signing v1.0 has it. Prints the signature's path.

    It covers every file but the card. ptft push sends it along; pull, verify and the service hold a
    model to a key that you name. A key:
    openssl ecparam -genkey -name prime256v1 -noout -out key.pem
    and what others verify with: openssl ec -in key.pem -pubout -out key.pub
    """
    from ptft.artifact import read_model_info
    from ptft.onnx.served import check_whole
    from ptft.signing import sign_folder

    check_whole(folder, read_model_info(folder), "ptft sign")
    print(sign_folder(folder, key, os.environ.get(_PASSWORD) or None))
