"""``ptft predict``: what a detector finds, as COCO's JSON and as pictures with boxes; or which of
several classes pictures have."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ptft.cli.arguments import local_path

if TYPE_CHECKING:
    from ptft.evaluate.predict import BoxQuery
    from ptft.model import DualEncoder
    from ptft.speech import ProgressCallback

__all__ = ["EXAMPLE", "command"]

EXAMPLE = (
    "ptft predict runs/cells photos --out found --count\n"
    'ptft predict models/scenes photos --out found --texts "a red circle" --nms 0.5'
)


def command(
    model: Annotated[
        str,
        typer.Argument(
            help="A run, checkpoint or model folder of a detector or of a classifier by "
            "data.labels: many, or org/repo@revision."
        ),
    ],
    pictures: Annotated[
        list[Path],
        typer.Argument(
            parser=local_path, metavar="PICTURES", help="Files, or folders with all within."
        ),
    ],
    out: Annotated[
        Path, typer.Option(parser=local_path, metavar="FOLDER", help="The folder to write.")
    ],
    texts: Annotated[
        list[str] | None,
        typer.Option(help="What to look for, once for each; absent: the model's own classes."),
    ] = None,
    templates: Annotated[
        list[str] | None,
        typer.Option(help="Prompts, with {} for the text; absent: the model's own."),
    ] = None,
    threshold: Annotated[
        float | None,
        typer.Option(
            min=0.0, max=1.0, help="Probability below which nothing is told; absent: 0.1."
        ),
    ] = None,
    most: Annotated[
        int | None, typer.Option(min=1, help="Boxes of a picture, at most; absent: 100.")
    ] = None,
    nms: Annotated[
        float | None,
        typer.Option(
            min=0.0, max=1.0, help="IoU of two boxes of a text, of which the surer stays."
        ),
    ] = None,
    count: Annotated[
        bool,
        typer.Option(
            "--count",
            help="Tell what the detector counts, as training chose, and how many in counts.csv.",
        ),
    ] = False,
    draw: Annotated[bool, typer.Option(help="Write the pictures with their boxes too.")] = True,
) -> None:
    """Find things in pictures with a detector. Prints the JSON that was written.

    FOLDER/boxes.json is a data set of COCO's, each annotation with its score; FOLDER/pictures has
    the boxes drawn; with --count FOLDER/counts.csv has a line for each picture. A classifier of
    several classes a picture writes FOLDER/labels.jsonl: of each picture the classes that reach
    their thresholds, and the probability of every class. A picture that cannot be read is named,
    counted and left out. Absent, --nms is the model's own; 1 tells every box.
    """
    from ptft.errors import UsageError
    from ptft.evaluate.predict import BoxQuery

    if count and (texts or templates or any(one is not None for one in (threshold, most, nms))):
        raise UsageError(
            "--count: texts, templates, threshold, most and nms are what training chose; allowed: "
            "--count without --texts, --templates, --threshold, --most and --nms"
        )
    threshold, most = 0.1 if threshold is None else threshold, 100 if most is None else most
    query = BoxQuery(texts or (), templates or (), threshold, most, nms, count)
    print(_look(model, pictures, out, query, draw=draw))


def _look(model: str, places: list[Path], out: Path, query: "BoxQuery", *, draw: bool) -> str:
    """Look and write; what was found, in a line."""
    import torch

    from ptft.artifact import write_atomic, write_json
    from ptft.cli.console import Steps
    from ptft.errors import UsageError
    from ptft.evaluate.predict import count_table, named_pictures, predict_boxes
    from ptft.model import load_model

    if out.exists():
        raise UsageError(f"{out} is there; allowed: a new folder")
    pictures = named_pictures(places)
    with Steps() as steps:
        steps("loading the model")
        loaded = load_model(model).to("cuda" if torch.cuda.is_available() else "cpu")
        steps("looking")
        if loaded.spec.thresholds is not None:
            return _tell_labels(loaded, pictures, out, query, steps.count)
        drawn = out / "pictures" if draw else None
        values, skipped = predict_boxes(loaded, pictures, query, drawn=drawn, count=steps.count)
        out.mkdir(parents=True, exist_ok=True)
        write_json(out / "boxes.json", values)
        if query.count:
            write_atomic(out / "counts.csv", count_table(values))
    left = f", {skipped} left out" if skipped else ""
    boxes, images = len(values["annotations"]), len(values["images"])
    table = f"; {out / 'counts.csv'}" if query.count else ""
    return f"{out / 'boxes.json'}: {boxes} boxes in {images} pictures{left}{table}"


def _tell_labels(
    model: "DualEncoder",
    pictures: dict[str, Path],
    out: Path,
    query: "BoxQuery",
    count: "ProgressCallback",
) -> str:
    """Of a classifier whose classes do not exclude each other: what was told, in a line."""
    import json

    from ptft.artifact import write_atomic
    from ptft.errors import UsageError
    from ptft.evaluate.predict_labels import predict_labels

    if query.texts or query.templates or query.nms is not None or query.count:
        raise UsageError(
            "--texts, --templates, --nms, --count: of a detector; this model tells its own classes"
        )
    lines, skipped = predict_labels(model, pictures, count=count)
    out.mkdir(parents=True, exist_ok=True)
    path = out / "labels.jsonl"
    write_atomic(path, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))
    left = f", {skipped} left out" if skipped else ""
    told = sum(len(line["labels"]) for line in lines)
    return f"{path}: {told} classes in {len(lines)} pictures{left}"
