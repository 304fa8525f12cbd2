"""``ptft mix``: WiSE-FT and soups, the mean of the weights of models of one start."""

from pathlib import Path
from typing import Annotated

import typer

from ptft.cli.arguments import local_path

__all__ = ["EXAMPLE", "command"]

EXAMPLE = "ptft mix runs/tuned runs/mixed --base runs/scenes -a 0.25,0.5,0.75"

_HALF = "0.5"  # what WiSE-FT takes where nothing is measured (Wortsman et al. 2022a, section 4)


def command(
    models: Annotated[
        list[str],
        typer.Argument(help="Runs, checkpoints, model folders, or org/repo@revision."),
    ],
    out: Annotated[
        Path, typer.Argument(parser=local_path, metavar="OUT", help="The folder to write.")
    ],
    base: Annotated[
        str | None, typer.Option("--base", "-b", help="The start of them all, to mix with.")
    ] = None,
    alpha: Annotated[
        str | None,
        typer.Option(
            "--alpha",
            "-a",
            metavar="A[,A]...",
            help=f"Shares of what was trained: 0.25,0.5,0.75. With --base; absent: {_HALF}.",
        ),
    ] = None,
    recipe: Annotated[
        str | None,
        typer.Option(
            "--recipe",
            "-r",
            help="Measure by its evaluations. Absent: nothing; of several shares, the first "
            "model's own recipe.",
        ),
    ] = None,
    metric: Annotated[
        str | None,
        typer.Option(
            "--metric",
            "-m",
            metavar="ITEM.FIGURE",
            help="To be greatest: line.i2t_recall@5. Absent: the first evaluation's first.",
        ),
    ] = None,
    keep: Annotated[
        list[str] | None,
        typer.Option(
            "--keep",
            "-k",
            metavar="ITEM.FIGURE=SHARE",
            help="Of the start's figure at least so much is to remain: shaded.i2t_recall@5=0.98.",
        ),
    ] = None,
) -> None:
    """Mix models of one start by their weights. Prints the folder, which holds a model.

    One model with --base is WiSE-FT; several are a soup, with --base mixed with their start. Of
    several shares the best on validation data is written; mix.json records all.
    """
    # Over 60 lines: most are the options of the command line.
    from ptft.recipe import load_evaluation

    alphas = _numbers(alpha or _HALF) if base or alpha else []
    kept = dict(_share(word) for word in keep or ())
    loaded = load_evaluation(recipe, model=models[0]) if recipe is not None else None
    from ptft.cli.console import Steps
    from ptft.mix import Choice, mix

    choice = None
    if loaded is not None or metric is not None or kept or len(alphas) > 1:
        choice = Choice(loaded, metric, kept)

    with Steps() as steps:
        mix(models, out, base=base, alphas=alphas, choice=choice, progress=steps)
    print(out)


def _numbers(words: str) -> list[float]:
    from ptft.errors import UsageError

    try:
        return [float(word) for word in words.split(",")]
    except ValueError:
        raise UsageError(f"--alpha: {words!r}; allowed: numbers as 0.25,0.5,0.75") from None


def _share(word: str) -> tuple[str, float]:
    from ptft.errors import UsageError

    name, _, share = word.rpartition("=")
    try:
        return name, float(share)
    except ValueError:
        raise UsageError(f"--keep: {word!r}; allowed: as shaded.i2t_recall@5=0.98") from None
