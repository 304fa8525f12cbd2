"""``ptft push``: a model folder to the Hub."""

from pathlib import Path
from typing import Annotated

import typer

from ptft.cli.arguments import local_path

__all__ = ["EXAMPLE", "command"]

EXAMPLE = "ptft push models/scenes your-name/scenes --license apache-2.0"


def command(
    folder: Annotated[
        Path,
        typer.Argument(
            parser=local_path, metavar="FOLDER", help="A model folder that ptft export wrote."
        ),
    ],
    repo: Annotated[str, typer.Argument(metavar="ORG/NAME", help="Created if it is not there.")],
    tag: Annotated[
        str | None, typer.Option("--tag", "-t", help="Name this version, such as v1.0.")
    ] = None,
    licence: Annotated[
        str | None,
        typer.Option(
            "--license",
            "--licence",
            help="By the Hub's short name; absent: the card's, or the base's.",
        ),
    ] = None,
    private: Annotated[
        bool | None,
        typer.Option(
            "--private/--public", help="Of a new repository; absent: the owner's default."
        ),
    ] = None,
    create_pr: Annotated[
        bool, typer.Option("--create-pr", help="Propose the commit as a pull request.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="List what would be sent; change nothing.")
    ] = False,
    branch: Annotated[str, typer.Option("--branch", help="The branch to publish on.")] = "main",
) -> None:
    """Publish a model folder in one commit. Prints the commit's address.

    Every byte is held against ptft.json first, and a push that is cut off changes nothing: run
    it again. The token is that of `hf auth login` or HF_TOKEN; HF_ENDPOINT names another Hub.
    """
    from ptft.cli.console import Steps
    from ptft.hub import push_model
    from ptft.speech import tell

    with Steps(bar=False) as steps:  # the Hub's client draws its own
        done = push_model(
            folder,
            repo,
            tag=tag,
            licence=licence,
            private=private,
            create_pr=create_pr,
            dry_run=dry_run,
            revision=branch,
            progress=steps,
        )
    for note in done.notes:
        tell(f"ptft: note: {note}")
    if not dry_run:
        print(done.url)
        return
    for name, size in done.sent.items():
        print(f"send    {size:>12}  {name}")
    for name in done.deleted:
        print(f"delete  {'':>12}  {name}")
    if done.tag is not None:
        print(f"tag     {'':>12}  {done.tag}")
