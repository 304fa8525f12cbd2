"""``ptft verify``: whether what is served, or lies here or on the Hub, is what was trained."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from ptft.cli.arguments import Signer, local_path
from ptft.printable import printable

__all__ = ["EXAMPLE", "command"]

EXAMPLE = "ptft verify runs/scenes models/scenes"


def command(
    targets: Annotated[
        list[str],
        typer.Argument(
            metavar="TARGET...",
            help="[RUN] FOLDER, ORG/NAME@REVISION or sha256:... [http://SERVICE], each held "
            "against the one before it.",
        ),
    ],
    torch: Annotated[
        bool, typer.Option("--torch/--no-torch", help="Run the weights by torch if it is there.")
    ] = True,
    data: Annotated[
        Path | None,
        typer.Option(
            parser=local_path,
            help="Draw further inputs from this folder of pictures and .txt files.",
        ),
    ] = None,
    seed: Annotated[
        int | None, typer.Option(min=0, help="Of what is drawn; absent: a new one, which is said.")
    ] = None,
    require_signature: Signer = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Hold a model against its digests, golden embeddings and weights. Prints each link of its way.

    Digests are exact. Answers are known for the inputs that a line names: golden ones, and some
    drawn anew. ONNX files are held against what an export makes of the weights, with torch.
    recipe -> run -> folder -> service: a line says which link is broken, and the exit code is 1.
    A service is asked because you name it; it is sent the golden pictures and texts.
    """
    from ptft.cli.console import Steps
    from ptft.verify import verify

    with Steps() as steps:
        links = verify(
            targets,
            torch=torch,
            progress=steps,
            data=data,
            seed=seed,
            signed_by=require_signature,
        )
    ok = all(link.state != "broken" for link in links)
    if as_json:
        print(json.dumps({"ok": ok, "links": [asdict(link) for link in links]}, indent=2))
    else:
        for link in links:
            line = f"{link.state:<10} {link.name:<20} {link.target}: {link.detail}"
            print(printable(line))
        if open_ := [link.name for link in links if link.state == "unchecked"]:
            print(
                f"{len(open_)} of {len(links)} unchecked, and nothing is known of them: "
                f"{', '.join(open_)}"
            )
    if not ok:
        raise typer.Exit(1)
