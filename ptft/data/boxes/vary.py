"""Pictures with boxes, varied for training: crops that keep boxes, mirrors, jitter, mosaics.

What chance decides comes from the generator alone, in one order, so that a resumed run draws as an
uninterrupted one.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ptft.data.boxes.box import Boxes
from ptft.data.reading.decode import resize
from ptft.preprocess.frame import frame_of
from ptft.preprocess.images import Augmentation, ImagePreprocess, random_crop, vary

__all__ = ["Marked", "fit_marked", "mosaic", "vary_marked"]

VISIBLE = 0.25  # share of a box that must be left of it in a crop
_TRIES = 10  # crops that are drawn until one keeps a box


@dataclass(frozen=True)
class Marked:
    """A picture with its boxes, in pixels of it.

    Attributes:
        pixels: uint8 (H, W, 3).
        boxes: in it.
    """

    pixels: NDArray[np.uint8]
    boxes: Boxes

    @property
    def size(self) -> tuple[int, int]:
        """Width and height."""
        return self.pixels.shape[1], self.pixels.shape[0]


@dataclass(frozen=True)
class _Still:
    """An augmentation that jitters alone: what moves pixels moves boxes, and is done here."""

    colour_jitter: float
    flip: bool = False
    crop_scale: tuple[float, float] = (1.0, 1.0)
    crop_ratio: tuple[float, float] = (1.0, 1.0)


def fit_marked(marked: Marked, preprocess: ImagePreprocess) -> Marked:
    """A picture as the model takes it, boxes as centre x, centre y, width, height in shares."""
    frame = frame_of(marked.size, preprocess.size, preprocess.resize_mode)
    height, width = preprocess.size
    if preprocess.resize_mode == "squash":
        pixels = resize(marked.pixels, preprocess.size, preprocess.interpolation)
    else:
        inner = (
            max(1, round(frame.down * marked.size[1] * height)),
            max(1, round(frame.across * marked.size[0] * width)),
        )
        pixels = np.full((height, width, 3), preprocess.fill_color, np.uint8)
        top, left = round(frame.top * height), round(frame.left * width)
        pixels[top : top + inner[0], left : left + inner[1]] = resize(
            marked.pixels, inner, preprocess.interpolation
        )
    shares = frame.to_shares(marked.boxes.corners)
    return Marked(pixels, marked.boxes.with_corners(shares))


def vary_marked(
    marked: Marked, preprocess: ImagePreprocess, rng: np.random.Generator, section: Augmentation
) -> Marked:
    """A random crop that keeps a box where there is one, fitted, mirrored and jittered.

    A box of which less than a quarter is left goes; one that is cut keeps what is left of it.
    """
    fitted = fit_marked(_cropped(marked, rng, section), preprocess)
    pixels, boxes = fitted.pixels, fitted.boxes
    if section.flip and rng.random() < 0.5:
        pixels = np.ascontiguousarray(pixels[:, ::-1])
        mirrored = boxes.corners.copy()
        mirrored[:, 0] = 1.0 - mirrored[:, 0]
        boxes = boxes.with_corners(mirrored)
    return Marked(vary(pixels, rng, _Still(section.colour_jitter)), boxes)


def mosaic(parts: Sequence[Marked], rng: np.random.Generator, fill: int) -> Marked:
    """Four pictures in one (Bochkovskiy et al. 2020, YOLOv4), around a point that is drawn.

    Each is shrunk or enlarged to its quarter, sides by themselves, so that every box stays whole.
    The picture has the size of the first.
    """
    width, height = parts[0].size
    cut_x = round(width * rng.uniform(0.3, 0.7))
    cut_y = round(height * rng.uniform(0.3, 0.7))
    pixels = np.full((height, width, 3), fill, np.uint8)
    quarters = (
        (0, 0, cut_x, cut_y),
        (cut_x, 0, width, cut_y),
        (0, cut_y, cut_x, height),
        (cut_x, cut_y, width, height),
    )
    placed: list[Boxes] = []
    for part, (left, top, right, bottom) in zip(parts, quarters, strict=True):
        size = (bottom - top, right - left)
        if not all(size):
            continue
        pixels[top:bottom, left:right] = resize(part.pixels, size, "bilinear")
        scale = np.array([size[1] / part.size[0], size[0] / part.size[1]] * 2, np.float32)
        offset = np.array([left, top] * 2, np.float32)
        placed.append(part.boxes.with_corners(part.boxes.corners * scale + offset))
    return Marked(pixels, join_boxes(placed))


def join_boxes(parts: Sequence[Boxes]) -> Boxes:
    """The boxes of several as one; asked of are the classes that all were annotated for."""
    asked = None
    for part in parts:
        if part.asked is not None:
            asked = part.asked if asked is None else np.intersect1d(asked, part.asked)
    return Boxes(
        np.concatenate([part.corners for part in parts]),
        np.concatenate([part.labels for part in parts]),
        np.concatenate([part.crowd for part in parts]),
        np.concatenate([part.difficult for part in parts]),
        asked,
    )


def _cropped(marked: Marked, rng: np.random.Generator, section: Augmentation) -> Marked:
    if section.crop_scale == (1.0, 1.0):
        return marked
    for _ in range(_TRIES):
        left, top, width, height = random_crop(marked.size, rng, section)
        boxes = _within(marked.boxes, left, top, width, height)
        if len(boxes) or not len(marked.boxes):
            pixels = marked.pixels[top : top + height, left : left + width]
            return Marked(pixels, boxes)
    return marked


def _within(boxes: Boxes, left: int, top: int, width: int, height: int) -> Boxes:
    """What a crop leaves of boxes, in its own pixels. A sliver that is left of one is a region of
    its class, as a crowd is: neither right nor wrong."""
    offset = np.array([left, top, left, top], np.float32)
    limits = np.array([width, height, width, height], np.float32)
    cut = boxes.with_corners(np.clip(boxes.corners - offset, 0.0, limits))
    share = cut.areas / np.maximum(boxes.areas, np.float32(1e-6))
    kept = share >= VISIBLE
    gone = (share > 0) & ~kept
    left_over = replace(cut[gone], crowd=np.ones(int(gone.sum()), bool))
    return join_boxes([cut[kept], left_over]) if gone.any() else cut[kept]
