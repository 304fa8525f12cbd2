"""How pictures with boxes become a batch."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from ptft.data.boxes.box import Boxes, BoxTally, clean_boxes
from ptft.data.boxes.vary import Marked, fit_marked, mosaic, vary_marked
from ptft.data.hashing import fraction, hash_integers
from ptft.data.reading.batch import Batch, BatchSpec, MarkedBatch, Skipped
from ptft.data.reading.decode import Encoded, stack
from ptft.data.reading.order import RunOrder, rng_for
from ptft.data.reading.read import none_readable, skip_of
from ptft.data.sample import Sample, SampleSet
from ptft.errors import SampleError
from ptft.preprocess.decoding import open_picture
from ptft.preprocess.frame import Frame, frame_of
from ptft.preprocess.images import ImagePreprocess
from ptft.preprocess.picture_parts import orientation_of

__all__ = ["BoxReader", "EvalBoxReader", "placed_boxes", "read_marked"]

_MOSAIC = 0x6D6F73  # keeps its draws apart


def read_marked(
    sample: Sample, preprocess: ImagePreprocess, tally: BoxTally | None = None
) -> Marked:
    """A sample's picture, upright, with its boxes cut to it.

    Raises:
        SampleError: the picture cannot be read, or nobody says what is in it.
    """
    if sample.boxes is None:
        raise SampleError(f"{sample.name}: no boxes are known of it", "empty")
    picture = sample.picture
    if isinstance(picture, Image.Image):
        pixels = np.asarray(picture.convert("RGB"))
    else:
        assert isinstance(picture, Encoded)
        pixels = picture.pixels(preprocess.reading)
    boxes = placed_boxes(sample, (pixels.shape[1], pixels.shape[0]), tally or BoxTally())
    return Marked(np.array(pixels) if not pixels.flags.writeable else pixels, boxes)


def placed_boxes(sample: Sample, size: tuple[int, int], tally: BoxTally) -> Boxes:
    """A sample's boxes in pixels of its upright picture of ``size`` (width and height), cut to it.

    Where the annotation's size is the picture's before EXIF turns it, its boxes are turned along.

    Raises:
        SampleError: the annotation is of a picture of another size.
    """
    boxes = sample.boxes
    assert boxes is not None
    if boxes.relative:
        scale = np.array([*size, *size], np.float32)
        boxes = replace(boxes.with_corners(boxes.corners * scale), relative=False)
    elif boxes.size is not None and boxes.size != size:
        turn = _turn_of(sample.picture)
        if boxes.size != size[::-1] or turn < 5:
            raise SampleError(
                f"{sample.name}: {size[0]}x{size[1]} pixels, and its boxes are of "
                f"{boxes.size[0]}x{boxes.size[1]}",
                "mislabelled",
            )
        tally.add("of pictures that EXIF turns: turned along", sample.name, len(boxes))
        boxes = boxes.with_corners(turned(boxes.corners, turn, boxes.size))
    return clean_boxes(boxes, size, sample.name, tally)


def turned(
    corners: NDArray[np.float32], orientation: int, size: tuple[int, int]
) -> NDArray[np.float32]:
    """Corner boxes (T, 4) of a stored picture of ``size`` (width and height) in the upright one, by
    EXIF's orientations that swap the sides: 5 to 8."""
    width, height = size
    left, top, right, bottom = corners.T
    across = (top, bottom) if orientation in (5, 8) else (height - bottom, height - top)
    down = (left, right) if orientation in (5, 6) else (width - right, width - left)
    return np.stack([across[0], down[0], across[1], down[1]], axis=1).astype(np.float32)


def _turn_of(picture: Encoded | Image.Image) -> int:
    """EXIF's orientation of a picture as it is stored; 1: it is upright."""
    if isinstance(picture, Image.Image):
        return 1
    with open_picture(picture.data) as opened:  # it was decoded before
        opened.load()
        return orientation_of(opened)


@dataclass(frozen=True)
class BoxReader:
    """Reads the samples at given positions of a run, with their boxes; see ``TrainReader``."""

    samples: SampleSet
    order: RunOrder
    spec: BatchSpec

    def read(self, positions: range, out: torch.Tensor | None = None) -> Batch:
        """Read a batch; its pictures go to ``out`` where that is given.

        Raises:
            DataError: a sample could not be read, nor could any that may replace it.
        """
        skipped: Skipped = []
        names: list[str] = []
        marked: list[Marked] = []
        for position in positions:
            name, one = self._read(position, skipped)
            names.append(name)
            marked.append(one)
        return Batch(
            images=stack([one.pixels for one in marked], out),
            tokens=None,
            caption_ids=None,
            labels=None,
            names=names,
            skipped=skipped,
            boxes=[one.boxes for one in marked],
        )

    def _read(self, position: int, skipped: Skipped) -> tuple[str, Marked]:
        self.samples.look_ahead(self.order, position)
        tried = 0
        first = self.order[position]
        for index in (first, *self.order.replacements(position)):
            tried += 1
            try:
                sample = self.samples[index]
                return sample.name, self._varied(sample, position)
            except SampleError as error:
                skipped.append(skip_of(self.samples.name(index), error))
        raise none_readable(tried, skipped[-tried])

    def _varied(self, sample: Sample, position: int) -> Marked:
        preprocess, section = self.spec.preprocess, self.spec.augment
        marked = read_marked(sample, preprocess)
        if section is None:
            return fit_marked(marked, preprocess)
        rng = rng_for(self.order.seed, position)
        if fraction(self.order.seed, _MOSAIC, position) < self.spec.mosaic:
            marked = mosaic([marked, *self._others(position)], rng, preprocess.fill_color)
        return vary_marked(marked, preprocess, rng, section)

    def _others(self, position: int) -> list[Marked]:
        """Three more pictures of a mosaic, drawn by the seed; one that cannot be read is passed
        over here, and counted where it is read for its own sake."""
        others: list[Marked] = []
        for number in range(30):
            draw = hash_integers(self.order.seed, _MOSAIC, position, number) % len(self.samples)
            try:
                others.append(read_marked(self.samples[draw], self.spec.preprocess))
            except SampleError:
                continue
            if len(others) == 3:
                return others
        raise SampleError("mosaic: none of 30 pictures beside it could be read", "corrupt")


@dataclass(frozen=True)
class EvalBoxReader:
    """Reads given samples of a set as they are, with their boxes in pixels of the upright
    picture."""

    samples: SampleSet
    preprocess: ImagePreprocess
    tally: BoxTally = field(default_factory=BoxTally)

    def read(self, indices: Sequence[int]) -> MarkedBatch:
        """Read a batch; it may be empty."""
        skipped: Skipped = []
        kept: list[int] = []
        pixels: list[NDArray[np.uint8]] = []
        boxes: list[Boxes] = []
        frames: list[Frame] = []
        for index in indices:
            try:
                marked = read_marked(self.samples[index], self.preprocess, self.tally)
                frame = frame_of(marked.size, self.preprocess.size, self.preprocess.resize_mode)
                fitted = self.preprocess.pixels(Image.fromarray(marked.pixels))
            except SampleError as error:
                skipped.append(skip_of(self.samples.name(index), error))
                continue
            kept.append(index)
            pixels.append(fitted)
            boxes.append(marked.boxes)
            frames.append(frame)
        empty = np.zeros((0, *self.preprocess.size, 3), np.uint8)
        images = torch.from_numpy(np.stack(pixels) if pixels else empty)
        return MarkedBatch(
            images=images,
            indices=torch.tensor(kept, dtype=torch.int64),
            boxes=boxes,
            frames=frames,
            skipped=skipped,
        )
