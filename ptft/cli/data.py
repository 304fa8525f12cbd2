"""``ptft data``: make shards quick to open."""

from typing import Annotated

import typer

__all__ = ["app"]

app = typer.Typer(
    help="Prepare WebDataset shards.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.command("index")
def index(
    shards: Annotated[
        list[str],
        typer.Argument(metavar="SHARD...", help="Tars, globs or brace patterns; in quotes."),
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

    from ptft.data.index_file import index_path, read_index, write_index
    from ptft.errors import DataError
    from ptft.recipe.paths import expand_paths

    for path in expand_paths(shards, "SHARD"):
        try:
            found = None if force else read_index(path)
        except DataError:
            found = None  # of another tar, or broken: what this command is for
        index = found or write_index(path)
        values = {"index": str(index_path(path)), "samples": len(index), "written": found is None}
        print(json.dumps(values), flush=True)
