"""``ptft check``: what would stop a recipe, found before it costs anything."""

import json
from typing import TYPE_CHECKING, Annotated

import typer

from ptft.cli.arguments import Overrides, RecipeName

if TYPE_CHECKING:
    from ptft.recipe import Recipe

__all__ = ["command"]


def command(
    recipe: RecipeName,
    overrides: Overrides = None,
    files_only: Annotated[
        bool, typer.Option("--files-only", help="Do not build the model; answers at once.")
    ] = False,
    measure: Annotated[
        bool, typer.Option("--measure", help="Time a few steps here and name the bottleneck.")
    ] = False,
) -> None:
    """Check a recipe: keys, files, data, model; predict the memory a step needs. Prints JSON.

    With --measure, time data, forward, loss, backward and optimiser on this machine instead.
    """
    from ptft.recipe import check_recipe, load_recipe

    loaded = load_recipe(recipe, overrides or ())
    check_recipe(loaded)
    if files_only:
        print(json.dumps({"recipe": loaded.name, "ok": True}))
        return
    if measure:
        _measure(loaded)
        return
    from ptft.train import predict_memory

    print(json.dumps({"recipe": loaded.name, "ok": True, **predict_memory(loaded)}, indent=2))


def _measure(loaded: "Recipe") -> None:
    """A table on stderr, the figures as JSON on stdout."""
    from rich.console import Console
    from rich.table import Table

    from ptft.train.measure import measure_step

    found = measure_step(loaded)
    table = Table("part", "ms a step", "share", title=f"{found.batch} samples, {found.precision}")
    whole = sum(found.seconds.values())
    for part, seconds in found.seconds.items():
        table.add_row(part, f"{seconds * 1e3:,.1f}", f"{seconds / whole:.0%}")
    console = Console(stderr=True)
    console.print(table)
    console.print(
        f"{found.samples_per_second:,.0f} samples/s with {found.workers} workers on "
        f"{found.device}; bottleneck: {found.bottleneck}: {found.advice}",
        highlight=False,
    )
    values = {
        "recipe": loaded.name,
        "milliseconds": {part: round(s * 1e3, 3) for part, s in found.seconds.items()},
        "samples_per_second": round(found.samples_per_second, 1),
        "batch": found.batch,
        "workers": found.workers,
        "precision": found.precision,
        "device": found.device,
        "bottleneck": found.bottleneck,
        "advice": found.advice,
    }
    print(json.dumps(values, indent=2))
