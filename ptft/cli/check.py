"""``ptft check``: what would stop a recipe, found before it costs anything."""

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ptft.cli.arguments import Overrides, RecipeName
from ptft.printable import printable

if TYPE_CHECKING:
    from rich.console import Console

    from ptft.cards import Offer
    from ptft.data.checks.check import Checked
    from ptft.recipe import Recipe

__all__ = ["EXAMPLE", "command"]

EXAMPLE = """\
ptft check pretrain/scenes --measure
ptft check pretrain/clip-vit-b32-cc12m --on h100x8 --price 2.5"""

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
    on: Annotated[
        str | None,
        typer.Option("--on", metavar="GPUS", help="Will it fit there, how long: h100x8, l4, ..."),
    ] = None,
    price: Annotated[
        float | None, typer.Option("--price", min=0.0, help="Of one GPU for an hour: the cost.")
    ] = None,
    utilisation: Annotated[
        float | None,
        typer.Option(
            "--utilisation", min=0.001, max=1.0, help="Of the GPU's arithmetic, where you know it."
        ),
    ] = None,
) -> None:
    """Check a recipe: keys, files, every split that it will read, model, memory. Prints JSON.

    Each split is opened: classes are held against those of training, pictures looked at (some, or
    all with --all), equal ones in training and evaluation counted. With --measure real steps run;
    with --on memory, hours and cost on GPUs that are not here are predicted.
    """
    from ptft.cli.speech import stderr
    from ptft.recipe import Comparison, check_recipe
    from ptft.recipe.load import load_any

    loaded = load_any(recipe, overrides or ())
    check_recipe(loaded)
    offer = _offer(on, price, utilisation, compares=isinstance(loaded, Comparison))
    if files_only:
        print(json.dumps({"recipe": loaded.name, "ok": True}))
        return
    console = stderr()
    checked, warnings = _splits(console, loaded, every=every)
    values: dict[str, Any] = {"recipe": loaded.name, "ok": True}
    values["data"] = {found.label: found.survey.summary() for found in checked}
    values["warnings"] = warnings
    if isinstance(loaded, Comparison):
        from ptft.compare import check_comparison

        values["compare"] = check_comparison(loaded)
    if measure:
        values |= _measure(console, loaded)
    elif not isinstance(loaded, Comparison):
        from ptft.train import predict_memory

        values |= predict_memory(loaded)
    if offer is not None:
        from ptft.train.cost.predict import predict_on

        values["on"] = predict_on(loaded, offer)
        _tell(console, values["on"])
    print(printable(json.dumps(values, indent=2, ensure_ascii=False), lines=True))


def _splits(
    console: "Console", loaded: "Recipe", *, every: bool
) -> tuple[list["Checked"], list[str]]:
    """Each split, opened and shown, and what there is to warn of, said."""
    from ptft.data.checks.check import check_splits
    from ptft.speech import warn

    with console.status("") as status:
        checked, warnings = check_splits(loaded, every=every, tell=status.update)
    _show(console, checked)
    for line in warnings:
        warn(line)
    return checked, warnings


def _offer(
    on: str | None, price: float | None, utilisation: float | None, *, compares: bool
) -> "Offer | None":
    """What --on and its options name; None: no --on."""
    from ptft.cards import Offer, find_machine
    from ptft.errors import UsageError

    if on is None:
        if price is not None or utilisation is not None:
            raise UsageError("--price, --utilisation: of GPUs that --on names")
        return None
    machine = find_machine(on, "--on")
    if compares:
        raise UsageError(
            "--on: of one run, and this is a comparison, which estimates itself as it starts"
        )
    return Offer(machine=machine, price=price, utilisation=utilisation)


def _tell(console: "Console", on: dict[str, Any]) -> None:
    """What GPUs would take, for people."""
    from rich.table import Table

    table = Table("", "predicted", title=f"on {on['machine']}: {on['card']}")
    fits = "fits" if on["fits"] else f"does not fit: {on['advice']}"
    table.add_row("memory of a GPU", f"{on['gib']['total']} of {on['gib_of_card']} GiB: {fits}")
    table.add_row("samples/s", f"{on['samples_per_second']:,} in {on['precision']}")
    table.add_row("step", f"{on['step_seconds']} s")
    table.add_row("hours", f"{on['hours']:,} ({on['gpu_hours']:,} GPU-hours)")
    if "cost" in on:
        table.add_row("cost", f"{on['cost']:,}")
    console.print(table)
    for line in on["based_on"]:
        console.print(line, soft_wrap=True)


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
        marked = found.survey.classes is None
        for name, label, captions in found.survey.first:
            what = [label if marked else f"class {label!r}"] if label is not None else []
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
