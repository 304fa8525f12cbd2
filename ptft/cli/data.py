"""``ptft data``: look at data, make shards quick to open and pictures as small as needed."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ptft.cli.arguments import Overrides, RecipeName, example

if TYPE_CHECKING:
    from ptft.data.packing.pack import Packed

__all__ = ["app"]

app = typer.Typer(
    help="Look at data before training; prepare WebDataset shards.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)


class _Split(StrEnum):
    TRAIN = "train"
    VAL = "val"
    TEST = "test"


@app.command("look", epilog=example("ptft data look pictures/train --out look.html"))
def look(
    target: Annotated[
        str,
        typer.Argument(
            metavar="TARGET",
            help="A recipe, a folder, a parquet, CSV or JSON lines file, tars (a glob in quotes).",
        ),
    ],
    overrides: Overrides = None,
    out: Annotated[Path, typer.Option(help="The page.")] = Path("look.html"),
    every: Annotated[
        bool, typer.Option("--all", help="Decode every picture, not a sample of each split.")
    ] = False,
) -> None:
    """Write a page that shows a data set as a model will see it, split by split. Prints its path.

    Classes, sizes, formats, captions, duplicates, faults, and pictures with their captions after
    the recipe's own preprocessing. Of a path the data section is guessed, and said. What is wrong
    stands on the page in red; `ptft check` is what fails.
    """
    from ptft.artifact import write_atomic
    from ptft.cli.arguments import local_path
    from ptft.cli.speech import stderr
    from ptft.look import data_page
    from ptft.speech import tell, warn

    page = local_path(str(out))
    if page.is_dir():
        page = page / "look.html"
    console = stderr()
    with console.status("") as status:
        looked = data_page(target, overrides or (), every=every, tell=status.update)
    for line in looked.said:
        tell(f"guessed: {line}")
    if looked.section:
        tell(looked.section.rstrip("\n"))
    for line in looked.problems:
        tell(f"problem: {line}")
    for line in looked.warnings:
        warn(line)
    page.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(page, looked.page)
    print(page)


@app.command("index", epilog=example("ptft data index 'shards/train-{0000..0099}.tar'"))
def index(
    shards: Annotated[
        list[str],
        typer.Argument(
            metavar="SHARD...", help="Tars: paths or addresses, globs or braces in quotes."
        ),
    ],
    force: Annotated[
        bool, typer.Option("--force", help="Write those again that are there and fit.")
    ] = False,
) -> None:
    """Write the index of each tar beside it (shard.tar.index).

    With it remote shards need not be fetched to know what they hold, and local ones open faster.
    Prints a line of JSON for each shard.
    """
    import json

    from ptft.data.sources.shards import find_shards
    from ptft.data.tar.indexing import index_shard

    for source in find_shards(shards, "SHARD"):
        print(json.dumps(index_shard(source, force=force)), flush=True)


@app.command("pack", epilog=example("ptft data pack shoes.yaml packed --short-side 256"))
def pack(
    recipe: RecipeName,
    out: Annotated[Path, typer.Argument(metavar="OUT", help="The folder of the pack.")],
    overrides: Overrides = None,
    short_side: Annotated[
        int, typer.Option(min=16, help="Pixels of the shorter side that a picture keeps at most.")
    ] = 256,
    quality: Annotated[int, typer.Option(min=1, max=95, help="Of the JPEGs written.")] = 90,
    samples_per_shard: Annotated[int, typer.Option(min=1, help="Of the source.")] = 5000,
    split: Annotated[
        list[_Split] | None, typer.Option(help="Absent: all that the recipe has.")
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=0, help="Processes; absent: one a core. Results are equal.")
    ] = None,
) -> None:
    """Pack a recipe's pictures into shards, reduced to what training needs. Prints the new section.

    Pictures that are not larger are copied byte for byte, captions and labels carried over, broken
    samples left out and listed in pack.json. Called again, it goes on where it ended.
    """
    import yaml

    from ptft.data.packing.pack import PackSettings
    from ptft.data.packing.pack import pack as pack_section
    from ptft.recipe import load_recipe
    from ptft.speech import LOG, say, tell

    loaded = load_recipe(recipe, overrides or ())

    def count(name: str, done: int, total: int) -> None:
        say(LOG, f"{name}: {done:,} of {total:,}", shard=name, done=done, total=total)

    packed = pack_section(
        loaded.data,
        out,
        PackSettings(short_side, quality, samples_per_shard),
        splits=[one.value for one in split] if split else None,
        seed=loaded.seed,
        workers=workers,
        progress=count,
    )
    tell(_summary(packed))
    section = packed.section.model_dump(mode="json", exclude_defaults=True)
    print(yaml.safe_dump({"data": {"kind": "shards", **section}}, sort_keys=False), end="")


def _summary(packed: "Packed") -> str:
    shards, skipped = packed.shards, packed.skipped
    lines = [
        f"{sum(shard.samples for shard in shards):,} samples in {len(shards):,} shards, "
        f"{sum(shard.size for shard in shards) / 1e6:,.1f} MB; "
        f"{sum(shard.resized for shard in shards):,} pictures encoded anew"
    ]
    if skipped:
        name, reason = skipped[0]
        lines.append(f"skipped {len(skipped):,} of {packed.total:,}; first: {name}: {reason}")
    return "\n".join(lines)
