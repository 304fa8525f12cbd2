"""``ptft check``: what would stop a recipe, found before it costs anything."""

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ptft.cli.arguments import Overrides, RecipeName
from ptft.printable import printable

if TYPE_CHECKING:
    from rich.console import Console

    from ptft.data.checks.check import Checked
    from ptft.recipe import Recipe

__all__ = ["EXAMPLE", "command"]

EXAMPLE = "ptft check pretrain/scenes --measure"

_CLASSES = 4  # of a split, that the table names


def command(
    recipe: RecipeName,
    overrides: Overrides = None,
    files_only: Annotated[
        bool, typer.Option("--files-only", help="Do not open the data; answers at once.")
    ] = False,
    every: Annotated[
        bool, typer.Option("--all", help="Decode every picture, not a sample of each split.")
    ] = False,
    measure: Annotated[
        bool,
        typer.Option(
            "--measure", help="Run a few real steps here, time them, name the bottleneck."
        ),
    ] = False,
) -> None:
    """Check a recipe: keys, files, every split that it will read, model, memory. Prints JSON.

    Each split is opened: classes are held against those of training, pictures looked at (some, or
    all with --all), equal ones in training and evaluation counted. With --measure real steps run.
    """
    from ptft.cli.speech import stderr
    from ptft.recipe import Comparison, check_recipe
    from ptft.recipe.load import load_any
    from ptft.speech import warn

    loaded = load_any(recipe, overrides or ())
    check_recipe(loaded)
    if files_only:
        print(json.dumps({"recipe": loaded.name, "ok": True}))
        return
    console = stderr()
    from ptft.data.checks.check import check_splits

    with console.status("") as status:
        checked, warnings = check_splits(loaded, every=every, tell=status.update)
    _show(console, checked)
    for line in warnings:
        warn(line)
    values: dict[str, Any] = {"recipe": loaded.name, "ok": True}
    values["data"] = {found.label: found.survey.summary() for found in checked}
    values["warnings"] = warnings
    if measure:
        values |= _measure(console, loaded)
    elif not isinstance(loaded, Comparison):
        from ptft.train import predict_memory

        values |= predict_memory(loaded)
    print(printable(json.dumps(values, indent=2, ensure_ascii=False), lines=True))


def _show(console: "Console", checked: list["Checked"]) -> None:
    """What each split holds, and its first samples, for people."""
    from rich.table import Table

    table = Table("split", "samples", "classes", "captions", "pictures", title="data")
    for found in checked:
        survey = found.survey
        table.add_row(
            found.label,
            f"{survey.samples:,}",
            _classes(found),
            "" if survey.lengths is None else f"{survey.distinct:,} of {survey.words:,} differ",
            ", ".join(f"{count:,} {form}" for form, count in survey.forms.items()),
        )
    console.print(table)
    for found in checked:
        if found.survey.labels_are:
            console.print(f"{found.label}: labels are {found.survey.labels_are}", soft_wrap=True)
        for name, label, captions in found.survey.first:
            what = [f"class {label!r}"] if label is not None else []
            what += [repr(caption[:100]) for caption in captions[:3]]
            console.print(f"  {name}: {', '.join(what) or 'no class, no caption'}", soft_wrap=True)


def _classes(found: "Checked") -> str:
    survey = found.survey
    if survey.classes is None:
        return ""
    if survey.counts is None:
        return f"{len(survey.classes):,}"
    pairs = [f"{n} {count:,}" for n, count in zip(survey.classes, survey.counts, strict=True)]
    more = ", ..." if len(pairs) > _CLASSES else ""
    return f"{len(pairs):,}: {', '.join(pairs[:_CLASSES])}{more}"


def _measure(console: "Console", loaded: "Recipe") -> dict[str, Any]:
    """A table on stderr, and the figures."""
    from rich.table import Table

    from ptft.train.cost.measure import measure_step

    found = measure_step(loaded)
    table = Table("part", "ms a step", "share", title=f"{found.batch} samples, {found.precision}")
    whole = sum(found.seconds.values())
    for part, seconds in found.seconds.items():
        table.add_row(part, f"{seconds * 1e3:,.1f}", f"{seconds / whole:.0%}")
    console.print(table)
    console.print(
        f"{found.samples_per_second:,.0f} samples/s with {found.workers} workers on "
        f"{found.device}; bottleneck: {found.bottleneck}: {found.advice}",
    )
    return {
        "milliseconds": {part: round(s * 1e3, 3) for part, s in found.seconds.items()},
        "samples_per_second": round(found.samples_per_second, 1),
        "batch": found.batch,
        "workers": found.workers,
        "precision": found.precision,
        "device": found.device,
        "bottleneck": found.bottleneck,
        "advice": found.advice,
    }
