"""``boxes.json``: what a detector found in evaluated pictures, for people to see."""

import base64
import io
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from ptft.artifact import read_as, write_json
from ptft.data import SampleSet
from ptft.errors import PtftError
from ptft.evaluate.detect import Detections, precision_curves
from ptft.evaluate.mistakes import (
    FOUND,
    RIGHT,
    JudgedBox,
    best_threshold,
    count_judged,
    judge_picture,
)

__all__ = [
    "BOXES_FILE",
    "EvaluatedBoxes",
    "FoundPicture",
    "found_boxes",
    "read_boxes",
    "record_boxes",
]

BOXES_FILE = "boxes.json"
"""In a run folder."""

_WORST, _FIRST = 6, 2  # pictures that are shown: those with most mistakes, and the first ones
_CURVES = 8  # classes whose curves are drawn: those with most boxes
_SIDE = 320  # of a picture on the page, in pixels


@dataclass(frozen=True)
class FoundPicture:
    """A picture with its boxes.

    Attributes:
        name: of the sample.
        image: a small copy as a data URI.
        width, height: of the picture, in whose pixels boxes are.
        boxes: things and answers.
        mistakes: how many of them are wrong or missed.
    """

    name: str
    image: str
    width: int
    height: int
    boxes: list[JudgedBox]
    mistakes: int


@dataclass(frozen=True)
class EvaluatedBoxes:
    """Of one evaluation.

    Attributes:
        threshold: score from which on answers count.
        counts: of each kind, see ``ptft.evaluate.mistakes.JudgedBox``.
        curves: of each class the precision at 101 recalls from 0 to 1, at an IoU of 0.5.
        pictures: the worst first.
    """

    threshold: float
    counts: dict[str, int]
    curves: dict[str, list[float]]
    pictures: list[FoundPicture]


def record_boxes(
    folder: Path, found: Mapping[str, tuple[SampleSet, Detections]]
) -> dict[str, EvaluatedBoxes]:
    """Leave in a run folder what its evaluations found; nothing where none detects."""
    shown = {name: found_boxes(samples, one) for name, (samples, one) in found.items()}
    if shown:
        write_json(folder / BOXES_FILE, {name: asdict(one) for name, one in shown.items()})
    return shown


def read_boxes(folder: Path) -> dict[str, EvaluatedBoxes]:
    """Read it again; empty where there is none.

    Raises:
        ArtifactError: the file is no JSON, or holds values of other types.
    """
    path = folder / BOXES_FILE
    if not path.is_file():
        return {}
    return read_as(path, dict[str, EvaluatedBoxes])


def found_boxes(samples: SampleSet, detections: Detections) -> EvaluatedBoxes:
    """Choose what is shown of an evaluation.

    Args:
        samples: the split that was asked.
    """
    threshold = best_threshold(detections)
    judged = [judge_picture(detections, place, threshold) for place in range(len(detections.names))]
    wrong = np.array([_wrong(boxes) for boxes in judged])
    worst = np.argsort(-wrong, kind="stable")[:_WORST].tolist()
    chosen = [place for place in worst if wrong[place]]
    chosen += [place for place in range(len(judged)) if place not in chosen][:_FIRST]
    pictures = []
    for place in chosen:
        try:
            image = _small(samples[detections.indices[place]].image)
        except PtftError:
            continue  # it was read a moment ago; the page does without
        width, height = detections.sizes[place]
        name = detections.names[place]
        boxes = judged[place]
        pictures.append(FoundPicture(name, image, width, height, boxes, _wrong(boxes)))
    return EvaluatedBoxes(
        threshold, count_judged(detections, threshold), _curves(detections), pictures
    )


def _wrong(boxes: list[JudgedBox]) -> int:
    """Answers that are wrong, and things that are missed: a swap of classes counts as both."""
    return sum(box.kind not in (RIGHT, FOUND) for box in boxes)


def _curves(detections: Detections) -> dict[str, list[float]]:
    curves = precision_curves(detections)
    counts = np.zeros(len(detections.classes), int)
    for boxes in detections.boxes:
        np.add.at(counts, boxes.labels, 1)
    most = [detections.classes[n] for n in np.argsort(-counts, kind="stable")]
    return {name: curves[name] for name in [n for n in most if n in curves][:_CURVES]}


def _small(picture: Image.Image) -> str:
    copy = picture.copy()
    copy.thumbnail((_SIDE, _SIDE))
    stream = io.BytesIO()
    copy.save(stream, "jpeg", quality=80)
    return f"data:image/jpeg;base64,{base64.b64encode(stream.getvalue()).decode()}"
