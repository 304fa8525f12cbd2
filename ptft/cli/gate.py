"""``ptft gate``: whether a model may serve, in place of the one that does."""

import json
import os
from dataclasses import asdict
from typing import Annotated

import typer

from ptft.cli.arguments import Signer

__all__ = ["EXAMPLE", "command"]

EXAMPLE = "ptft gate models/scenes --probe probes/shop --at-least top1=0.8"


Model = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        help="A model folder or ORG/NAME@REVISION, run here; or http://..., a service.",
    ),
]
Probe = Annotated[
    str | None,
    typer.Option(
        metavar="SET",
        help="A small set of yours: a folder, or ORG/NAME@REVISION of a data set on the Hub.",
    ),
]
AtLeast = Annotated[
    list[str] | None,
    typer.Option(metavar="FIGURE=VALUE", help="A floor: top1=0.8, t2i_recall@1=0.3, ..."),
]
Drop = Annotated[
    list[str] | None,
    typer.Option(metavar="FIGURE=VALUE", help="At most so much below --live: top1=0.02"),
]
AtMost = Annotated[
    list[str] | None,
    typer.Option(metavar="FIGURE=VALUE", help="Of --watch: errors=0.001, slower=1.5, ..."),
]
Watch = Annotated[
    float, typer.Option(min=0, metavar="SECONDS", help="Compare both services while they run.")
]
Precision = Annotated[str, typer.Option(help="Of a model that is run here: fp32, fp16 or int8.")]
Threads = Annotated[int, typer.Option(min=1, help="Of onnxruntime, where it is run here.")]


def command(
    model: Model,
    digest: Annotated[str | None, typer.Option(help="It has to have: sha256:...")] = None,
    require_signature: Signer = None,
    probe: Probe = None,
    at_least: AtLeast = None,
    drop: Drop = None,
    live: Annotated[
        str | None, typer.Option(metavar="URL", help="The service that runs now.")
    ] = None,
    watch: Watch = 0.0,
    at_most: AtMost = None,
    precision: Precision = "fp32",
    threads: Threads = 1,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Refuse a worse model. Prints what was held, and in one line what does not hold.

    Digest and golden embeddings are always held; figures of a probe set by the bounds that are
    given. PTFT_API_KEY is the key of services that ask for one. Exit code 1: it may not serve.
    """
    from ptft.artifact import PRECISIONS
    from ptft.cli.console import Steps
    from ptft.cli.speech import fail
    from ptft.errors import UsageError, suggest
    from ptft.gate import gate, open_probe_set, read_bounds
    from ptft.printable import printable

    if precision not in PRECISIONS:
        raise UsageError(f"--precision {precision}: {suggest(precision, PRECISIONS)}")
    bounds = [
        *read_bounds("at-least", at_least or ()),
        *read_bounds("drop", drop or ()),
        *read_bounds("at-most", at_most or ()),
    ]
    with Steps() as steps:
        checks = gate(
            model,
            digest=digest,
            signed_by=require_signature,
            probe=None if probe is None else open_probe_set(probe),
            bounds=bounds,
            live=live,
            seconds=watch,
            precision=precision,
            threads=threads,
            api_key=os.environ.get("PTFT_API_KEY") or None,
            progress=steps,
        )
    wrong = [one for one in checks if not one.ok]
    if as_json:
        print(json.dumps({"ok": not wrong, "checks": [asdict(one) for one in checks]}, indent=2))
    else:
        for one in checks:
            print(printable(f"{'ok' if one.ok else 'refused':<8} {one.name:<14} {one.detail}"))
    if wrong:
        fail("refused: " + "; ".join(f"{one.name} {one.detail}" for one in wrong), exit_code=1)
        raise typer.Exit(1)
