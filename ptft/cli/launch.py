"""``ptft launch``: a recipe as a cluster or a cloud takes it."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from ptft.cli.arguments import Overrides, RecipeName, local_path

__all__ = ["EXAMPLE", "command"]

EXAMPLE = """\
ptft launch pretrain/scenes --on slurm --set hours=12
ptft launch shoes.yaml --on skypilot --with cloud.yaml optim.lr=1e-4 --submit"""


class _On(StrEnum):  # as ptft.launch has it, which help does not import
    skypilot = "skypilot"
    slurm = "slurm"
    kubernetes = "kubernetes"
    hf_jobs = "hf-jobs"


class _Form(StrEnum):
    job = "job"
    jobset = "jobset"
    trainjob = "trainjob"


def command(
    recipe: RecipeName,
    on: Annotated[_On, typer.Option("--on", help="The system that runs it.")],
    overrides: Overrides = None,
    with_: Annotated[
        Path | None,
        typer.Option(
            "--with",
            parser=local_path,
            metavar="FILE",
            help="The launch file: image, gpus, nodes, mirror, ...",
        ),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="A key of the launch file: gpus=h100x8."),
    ] = None,
    form: Annotated[_Form, typer.Option("--form", help="Of kubernetes: which object.")] = _Form.job,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", parser=local_path, metavar="DIR", help="Write the file there, not to stdout."
        ),
    ] = None,
    submit_: Annotated[
        bool, typer.Option("--submit", help="Hand it to sky, sbatch, kubectl or hf.")
    ] = False,
) -> None:
    """Print or write what a system takes to run a recipe; --submit hands it over.

    A SkyPilot task, an sbatch script, an Indexed Job (or JobSet, TrainJob), or hf commands. Each
    starts the run or goes on with it, and is started again after a preemption.
    """
    from ptft.launch import Form, System, load_launch, render_launch, submit, write_rendered
    from ptft.speech import warn

    launch = load_launch(with_, settings or ())
    rendered = render_launch(recipe, overrides or (), launch, System(on), form=Form(form))
    for note in rendered.notes:
        warn(note)
    if submit_:
        submit(rendered, out)
    elif out is not None:
        print(write_rendered(rendered, out))
    else:
        print(rendered.text, end="")
