"""Encoded pictures, and the fast way from their bytes to what a model trains on.

Training decodes JPEGs by libjpeg-turbo straight into an array and resizes the crop on bytes in
torch, 2 to 3 times as fast as Pillow. What comes out is Pillow's picture within a tenth of a grey
level (of 255) on average: decoding gives the same bits, and the resize rounds its weights to 16
bits where Pillow's have 22. It is a pure function of the bytes and of the crop, so a run gives the
same pixels every time and with any number of workers.

What is not an everyday JPEG (CMYK, broken, PNG, WebP, ...) is decoded by Pillow. Evaluation,
export and serving use Pillow for everything (``ptft.preprocess``). Either way a picture is read as
its model says (``Reading``): upright by EXIF, deep greyscale scaled, on a background.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import simplejpeg
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image

from ptft.errors import SampleError
from ptft.preprocess.decoding import MAX_PIXELS, READING, Reading, decode_image
from ptft.preprocess.images import Augmentation, ImagePreprocess, random_crop, vary
from ptft.preprocess.picture_parts import jpeg_orientation, needed, turn_pixels

__all__ = [
    "CropDraw",
    "Decoded",
    "Encoded",
    "decode",
    "draw_crop",
    "resize",
    "stack",
    "train_pixels",
]

_JPEG = b"\xff\xd8\xff"
_BAND = 1 << 20  # pixels that are copied at once
_PLAIN = ("YCbCr", "RGB", "Gray")  # what is stored; others need Pillow's conversion


@dataclass(frozen=True)
class Encoded:
    """The bytes of a picture, decoded when asked and each time anew.

    Attributes:
        data: of a file in any format that ``decode_image`` reads.
        name: of the sample, for messages.
        max_pixels: larger pictures are refused before they are decoded.
    """

    data: bytes
    name: str
    max_pixels: int = MAX_PIXELS

    def image(self, reading: Reading = READING) -> Image.Image:
        """The picture as Pillow decodes it, RGB, read as a model says. Raises SampleError."""
        return decode_image(self.data, name=self.name, max_pixels=self.max_pixels, reading=reading)

    def pixels(self, reading: Reading = READING) -> NDArray[np.uint8]:
        """The same pixels, uint8 (H, W, 3), mostly without Pillow. Raises SampleError."""
        if self.data.startswith(_JPEG):
            decoded = self._jpeg(reading)
            if decoded is not None:
                return decoded
        return _pixels_of(self.image(reading))

    def _jpeg(self, reading: Reading) -> NDArray[np.uint8] | None:
        """The pixels, or None where Pillow has to decide what the bytes are worth."""
        try:
            needed(self.data)
            height, width, colours, _ = simplejpeg.decode_jpeg_header(self.data)
            if colours not in _PLAIN:
                return None
            if width * height > self.max_pixels:
                return None
            pixels = np.empty((height, width, 3), np.uint8)
            simplejpeg.decode_jpeg(self.data, "RGB", buffer=pixels)
            if reading.orient:
                pixels = turn_pixels(pixels, jpeg_orientation(self.data))
        except SampleError as error:
            raise SampleError(f"{self.name}: {error}", error.fault) from None
        except Exception:  # whatever is odd about it, Pillow says it, or reads it all the same
            return None
        return pixels


Decoded = NDArray[np.uint8] | Image.Image
"""What training starts from: an array, uint8 (H, W, 3), or Pillow's picture."""


def _pixels_of(image: Image.Image) -> NDArray[np.uint8]:
    """An RGB picture's pixels, uint8 (H, W, 3), copied a band at a time: Pillow makes two copies of
    what it gives away, which of a whole large picture would take twice its own memory."""
    width, height = image.size
    pixels = np.empty((height, width, 3), np.uint8)
    rows = max(1, _BAND // width)
    for top in range(0, height, rows):
        end = min(height, top + rows)
        pixels[top:end] = np.asarray(image.crop((0, top, width, end)))
    return pixels


def decode(
    picture: Encoded | Image.Image, section: Augmentation | None, reading: Reading = READING
) -> Decoded:
    """A picture as training under ``section`` needs it, read as the model says.

    Without a random crop (none, or a ``crop_scale`` of (1, 1)) training sees what evaluation sees,
    and a picture that was drawn rather than encoded is Pillow's already: these are Pillow's.

    Raises:
        SampleError: the bytes are no whole picture, or too large a one.
    """
    if isinstance(picture, Image.Image):
        return picture
    still = section is None or section.crop_scale == (1.0, 1.0)
    return picture.image(reading) if still else picture.pixels(reading)


@dataclass(frozen=True)
class CropDraw:
    """What chance holds for one picture: the crop, where it is an array; and what comes after."""

    rng: np.random.Generator
    crop: tuple[int, int, int, int] | None


def draw_crop(picture: Decoded, rng: np.random.Generator, section: Augmentation) -> CropDraw:
    """The crop that ``preprocess.augment`` takes by the same ``rng``."""
    if isinstance(picture, Image.Image):
        return CropDraw(rng, None)  # it draws by itself
    height, width = picture.shape[:2]
    return CropDraw(rng, random_crop((width, height), rng, section))


def train_pixels(
    preprocess: ImagePreprocess, picture: Decoded, drawn: CropDraw, section: Augmentation
) -> NDArray[np.uint8]:
    """``preprocess.augment``, the fast way for an array: the same crop, mirror and jitter, uint8
    (H, W, 3).

    Raises:
        SampleError: the picture cannot be resized, see ``ImagePreprocess.pixels``.
    """
    if isinstance(picture, Image.Image):
        return preprocess.augment(picture, drawn.rng, section)
    assert drawn.crop is not None, "the draw of another picture"
    left, top, width, height = drawn.crop
    crop = picture[top : top + height, left : left + width]
    return vary(resize(crop, preprocess.size, preprocess.interpolation), drawn.rng, section)


def resize(
    pixels: NDArray[np.uint8], size: tuple[int, int], interpolation: str
) -> NDArray[np.uint8]:
    """An antialiased resize of bytes, near Pillow's: uint8 (h, w, 3) to (H, W, 3).

    Args:
        pixels: writable, in any layout.
        size: height and width wanted.
        interpolation: ``bicubic`` or ``bilinear``.
    """
    # A batch of one, (1, 3, h, w), whose strides say channels last: numpy's would not, and torch
    # would take the channels apart, which costs a third more.
    picture = torch.from_numpy(pixels)[None].permute(0, 3, 1, 2)
    if _rows_first(pixels.shape[:2], size):
        picture = _interpolate(picture, (size[0], pixels.shape[1]), interpolation)
    picture = _interpolate(picture, size, interpolation)
    return np.ascontiguousarray(picture[0].permute(1, 2, 0).numpy())


def stack(rows: Sequence[NDArray[Any]], out: torch.Tensor | None = None) -> torch.Tensor:
    """Pictures of one size as a batch, uint8 (B, H, W, 3).

    Args:
        rows: of the batch.
        out: where they are put. Absent: in a process that reads ahead, at once where the other
            process will read them.
    """
    tensors = [torch.from_numpy(row) for row in rows]
    if out is not None:
        return torch.stack(tensors, out=out)
    batch: torch.Tensor = torch.utils.data.default_collate(tensors)
    return batch


def _interpolate(picture: torch.Tensor, size: tuple[int, int], mode: str) -> torch.Tensor:
    return F.interpolate(picture, size=size, mode=mode, antialias=True)


def _rows_first(old: tuple[int, int], new: tuple[int, int]) -> bool:
    """Whether Pillow (13) shrinks the height first.

    It does where that drops more than twice as many pixels of height as of width; torch always
    begins with the width. What lies between the two passes is rounded to bytes, so that another
    order is off by 0.2 of 255 on average. Found by comparing; ``test_data_decode`` holds it.
    """
    less_height, less_width = old[0] - new[0], old[1] - new[1]
    return less_height > 0 and less_height > 2 * less_width
