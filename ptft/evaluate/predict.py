"""What a detector finds in pictures that nobody has annotated, as COCO's JSON and drawn.

The JSON is a whole data set of COCO's (images, annotations with a ``score``, categories), so that
annotation tools and ``data: {kind: boxes}`` read it: a start for annotating by hand.
"""

import colorsys
import csv
import io
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from ptft.data.listing import read_picture
from ptft.errors import ModelError, SampleError, UsageError
from ptft.evaluate.detect import numbers_of
from ptft.evaluate.embed import evaluating
from ptft.index.build import pictures_within
from ptft.model import DualEncoder
from ptft.model.detecting import query_embeddings
from ptft.onnx.boxes import FoundBoxes, surest_boxes
from ptft.onnx.counting import MOST_COUNTED, Counting, counted_boxes
from ptft.preprocess import decode_image
from ptft.preprocess.decoding import MAX_PIXELS
from ptft.preprocess.frame import Frame, frame_of
from ptft.speech import ProgressCallback, tell

__all__ = [
    "BoxQuery",
    "PictureRead",
    "count_table",
    "draw_boxes",
    "named_pictures",
    "picture_batches",
    "predict_boxes",
    "says_nothing",
]

_BATCH = 16
_LINE = 0.004  # of the longer side, that a box is drawn with
_LETTERS = 0.022  # of it, that a label is high


@dataclass(frozen=True)
class BoxQuery:
    """What is looked for, and what of it is told.

    Attributes:
        texts: of the classes; empty: the model's own.
        templates: prompts, ``{}`` the text; empty: the model's own.
        threshold: probability below which nothing is told.
        most: boxes of a picture, at most.
        nms: of boxes of one text that overlap by more than this IoU only the surest stays; 1: all
            do; None: the model's own, see ``DetectorSpec.usual_nms``.
        count: tell what the detector counts, by what was chosen for that in training: its own
            classes and prompts, without the three above.
    """

    texts: Sequence[str] = ()
    templates: Sequence[str] = ()
    threshold: float = 0.1
    most: int = 100
    nms: float | None = None
    count: bool = False


@dataclass
class _Coco:
    """A data set of COCO's that grows."""

    classes: Sequence[str]
    images: list[dict[str, Any]] = field(default_factory=list)
    annotations: list[dict[str, Any]] = field(default_factory=list)

    def add(self, name: str, size: tuple[int, int], found: FoundBoxes) -> None:
        number = len(self.images) + 1
        width, height = size
        self.images.append({"id": number, "file_name": name, "width": width, "height": height})
        for corners, score, label in zip(found.corners, found.scores, found.labels, strict=True):
            left, top, right, bottom = (round(float(one), 2) for one in corners)
            box = [left, top, round(right - left, 2), round(bottom - top, 2)]
            self.annotations.append(
                {
                    "id": len(self.annotations) + 1,
                    "image_id": number,
                    "category_id": int(label) + 1,
                    "bbox": box,
                    "area": round(box[2] * box[3], 2),
                    "iscrowd": 0,
                    "score": round(float(score), 5),
                }
            )

    def values(self) -> dict[str, Any]:
        categories = [{"id": n + 1, "name": name} for n, name in enumerate(self.classes)]
        return {
            "images": self.images,
            "annotations": self.annotations,
            "categories": categories,
        }


def named_pictures(places: Sequence[Path]) -> dict[str, Path]:
    """Pictures by their names: of a folder those within it, by their paths there; of a file itself.

    Raises:
        UsageError: a place is not there or holds none, or two have one name.
    """
    found: dict[str, Path] = {}
    for place in places:
        if place.is_dir():
            own = {path.relative_to(place).as_posix(): path for path in pictures_within(place)}
            if not own:
                raise UsageError(f"{place}: no picture in it")
        elif place.is_file():
            own = {place.name: place}
        else:
            raise UsageError(f"{place}: no such picture or folder")
        for name, path in own.items():
            if name in found:
                raise UsageError(f"{path}: a picture named {name} is among them: {found[name]}")
            found[name] = path
    return found


@torch.no_grad()
def predict_boxes(
    model: DualEncoder,
    pictures: dict[str, Path],
    wanted: BoxQuery,
    *,
    drawn: Path | None = None,
    count: ProgressCallback | None = None,
) -> tuple[dict[str, Any], int]:
    """Find things in pictures.

    Args:
        model: a detector, on the device that is to run it.
        pictures: by their names.
        drawn: a folder that each picture is written to with its boxes, as a JPEG.
        count: told how many pictures are done.

    Returns:
        COCO's data set, and how many pictures could not be read; each of these is said.

    Raises:
        ModelError: the model is no detector, counts nothing, or gives what is not finite.
        UsageError: no picture can be read, a template has no place for the text, or texts are to be
            counted.
    """
    for template in wanted.templates:
        if "{}" not in template:
            raise UsageError(f"--templates {template!r}: lacks {{}}, where the text goes")
    if model.detector is None:
        raise says_nothing(model)
    classes = list(wanted.texts) or list(model.detector.spec.classes)
    templates = list(wanted.templates) or list(model.detector.spec.templates)
    counting = model.detector.spec.counting if wanted.count else None
    if wanted.nms is None:
        wanted = replace(wanted, nms=model.detector.spec.usual_nms)
    if wanted.count and (wanted.texts or wanted.templates):
        raise UsageError("--count: of the model's own classes; allowed: no texts, no templates")
    if wanted.count and counting is None:
        raise ModelError(
            f"{model.spec.name}: --count: its training chose nothing to count by; see "
            "objective.count of its recipe"
        )
    preprocess = model.spec.preprocess
    coco, skipped, done = _Coco(classes), 0, 0
    with evaluating(model):
        queries_qd = query_embeddings(model, classes, templates)
        for batch in picture_batches(model, pictures, _BATCH):
            read = [one for one in batch if isinstance(one, PictureRead)]
            skipped += len(batch) - len(read)
            if read:
                images = torch.from_numpy(np.stack([one.pixels for one in read]))
                inputs = model.normalise(images.to(model.device))
                logits_bnq, shares_bn4 = numbers_of(model.detect(inputs, queries_qd))
            for row, one in enumerate(read):
                frame = frame_of(one.image.size, preprocess.size, preprocess.resize_mode)
                found = _told(logits_bnq[row], shares_bn4[row], frame, wanted, counting)
                coco.add(one.name, frame.size, found)
                if drawn is not None:
                    path = drawn / f"{one.name}.jpg"
                    path.parent.mkdir(parents=True, exist_ok=True)
                    draw_boxes(one.image, found, classes).save(path, quality=90)
            done += len(batch)
            if count is not None:
                count("pictures", done, len(pictures))
    if not coco.images:
        raise UsageError(f"no picture that can be read ({skipped} cannot)")
    return coco.values(), skipped


def _told(
    logits_nq: NDArray[np.float32],
    shares_n4: NDArray[np.float32],
    frame: Frame,
    wanted: BoxQuery,
    counting: Counting | None,
) -> FoundBoxes:
    if counting is not None:
        every = surest_boxes(logits_nq, shares_n4, frame, most=MOST_COUNTED)
        return counted_boxes(every, counting)
    return surest_boxes(
        *(logits_nq, shares_n4, frame),
        most=wanted.most,
        nms=wanted.nms,
        threshold=wanted.threshold,
    )


def count_table(values: Mapping[str, Any]) -> str:
    """How many boxes of each class each picture of a COCO data set has, as CSV: ``file_name`` and a
    column for each class."""
    names = {one["id"]: one["name"] for one in values["categories"]}
    counts = Counter((one["image_id"], one["category_id"]) for one in values["annotations"])
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["file_name", *names.values()])
    for image in values["images"]:
        own = [counts[image["id"], number] for number in names]
        writer.writerow([image["file_name"], *own])
    return text.getvalue()


def says_nothing(model: DualEncoder) -> ModelError:
    """What is wrong with a model that has nothing to predict."""
    return ModelError(
        f"{model.spec.name}: ptft predict needs a detector, or a head for several classes a "
        "picture (data.labels: many); this model has neither"
    )


@dataclass(frozen=True)
class PictureRead:
    """A picture, and what the model takes of it."""

    name: str
    image: Image.Image
    pixels: NDArray[np.uint8]


def picture_batches(
    model: DualEncoder, pictures: Mapping[str, Path], size: int
) -> Iterator[list[PictureRead | SampleError]]:
    """Pictures, so many at once; of each that cannot be read it is said why."""
    left = iter(pictures.items())
    while batch := [_read(model, *both) for both in islice(left, size)]:
        yield batch


def _read(model: DualEncoder, name: str, path: Path) -> PictureRead | SampleError:
    """A picture; or why there is none, which is said."""
    preprocess = model.spec.preprocess
    try:
        data = read_picture(name, path, MAX_PIXELS)
        image = decode_image(data, name=name, reading=preprocess.reading)
        return PictureRead(name, image, preprocess.pixels(image))
    except SampleError as error:
        tell(f"left out: {error}")
        return error


def draw_boxes(image: Image.Image, found: FoundBoxes, classes: Sequence[str]) -> Image.Image:
    """A copy of a picture with its boxes, the surest on top, each with its class and score."""
    drawn = image.convert("RGB")
    pen = ImageDraw.Draw(drawn)
    side = max(drawn.size)
    line, letters = max(1, round(side * _LINE)), max(9.0, side * _LETTERS)
    for row in reversed(range(len(found.labels))):
        left, top, right, bottom = (float(one) for one in found.corners[row])
        colour = _colour(int(found.labels[row]), len(classes))
        pen.rectangle((left, top, max(left, right), max(top, bottom)), outline=colour, width=line)
        text = f"{classes[int(found.labels[row])]} {found.scores[row]:.2f}"
        at = (left + line, max(0.0, top - letters * 1.3))
        pen.rectangle(pen.textbbox(at, text, font_size=letters), fill=colour)
        pen.text(at, text, fill="white", font_size=letters)
    return drawn


def _colour(number: int, of: int) -> tuple[int, int, int]:
    """Hues around the circle, dark enough for white letters."""
    red, green, blue = colorsys.hls_to_rgb((number / max(1, of)) % 1.0, 0.38, 0.75)
    return round(red * 255), round(green * 255), round(blue * 255)
