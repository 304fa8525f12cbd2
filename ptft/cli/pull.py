"""``ptft pull``: a model folder from the Hub, verified."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from ptft.cli.arguments import Signer, local_path

__all__ = ["EXAMPLE", "command"]

EXAMPLE = "ptft pull your-name/scenes@v1.0 models/pulled"

Keep = Annotated[
    int | None,
    typer.Option(
        min=1,
        metavar="N",
        help="FOLDER holds several models, each in a folder of its own; the N asked for last "
        "stay. Where the Hub is away, what is there is taken.",
    ),
]


def command(
    repo: Annotated[
        str, typer.Argument(metavar="ORG/NAME[@REVISION]", help="A branch, a tag or a commit.")
    ],
    dest: Annotated[
        Path | None,
        typer.Argument(
            parser=local_path, metavar="[FOLDER]", help="Put a copy there; absent: the Hub's cache."
        ),
    ] = None,
    purpose: Annotated[
        Literal["everything", "serving"],
        typer.Option("--for", help="serving: only what the service reads, once, into FOLDER."),
    ] = "everything",
    precision: Annotated[
        list[str] | None,
        typer.Option(help="Of --for serving: fp32, fp16 or int8; repeat it for several."),
    ] = None,
    require_signature: Signer = None,
    keep: Keep = None,
) -> None:
    """Fetch a model folder and hold every byte against what was recorded. Prints the folder.

    Files that are in the cache are not fetched again; with HF_HUB_OFFLINE=1 they have to be.
    """
    from ptft.errors import UsageError
    from ptft.hub import pull_kept, pull_model

    if keep is not None:
        if dest is None:
            raise UsageError(f"--keep {keep}: needs a folder for the models")
        print(
            pull_kept(
                repo,
                dest,
                keep,
                serving=purpose == "serving",
                precision=precision or (),
                signed_by=require_signature,
            )
        )
        return
    print(
        pull_model(
            repo,
            dest,
            serving=purpose == "serving",
            precision=precision or (),
            signed_by=require_signature,
        )
    )
