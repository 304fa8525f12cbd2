"""What a picture would cost this service, and its pixels: admitted by its header, then decoded.

A picture is refused by itself, before anything is allocated, where its format is not one that the
settings name or where decoding it would take more than there is; the others of its request go on.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ptft.errors import SampleError
from ptft.preprocess import ImagePreprocess, decode_image
from ptft.preprocess.decoding import too_many_pixels
from ptft.preprocess.frame import Frame, frame_of
from ptft.preprocess.picture_header import PILLOW_NAMES, PictureHeader, format_of, read_header
from ptft.preprocess.picture_parts import jpeg_orientation, needed
from serving.settings import Settings

__all__ = ["Picture", "Pictures", "decoding_memory"]

logger = logging.getLogger("bentoml.ptft")

R = TypeVar("R")
_DCT_SCALES = (8, 4, 2, 1)  # of libjpeg, as Pillow uses it


@dataclass(frozen=True, slots=True)
class Picture:
    """A file that may be decoded.

    Attributes:
        data: its bytes.
        name: for messages.
        header: its format and size.
        memory: bytes that decoding takes at its peak.
        seconds: of a CPU that it takes.
    """

    data: bytes
    name: str
    header: PictureHeader
    memory: int
    seconds: float


class Pictures:
    """The service's rules for pictures.

    Args:
        settings: formats and caps.
        preprocess: of the model.
    """

    def __init__(self, settings: Settings, preprocess: ImagePreprocess) -> None:
        self._settings = settings
        self._preprocess = preprocess
        self._memory = decoding_memory(settings)
        if "heic" in settings.formats:
            register_heic()

    def look(self, data: bytes, name: str) -> Picture | SampleError:
        """What decoding would take, or why it is not to be decoded; reads the header alone."""
        kind, formats = format_of(data), self._settings.formats
        if kind not in formats:
            what = f"a picture of format {kind}" if kind else "not a picture"
            return SampleError(
                f"{name}: {what} ({len(data)} bytes); allowed: {', '.join(formats)} (PTFT_FORMATS)",
                "corrupt" if data else "empty",
            )
        try:
            needed(data)
        except SampleError as error:
            return SampleError(f"{name}: {error}", error.fault)
        header = read_header(data)
        if header is None or not header.pixels:
            return SampleError(f"{name}: a {kind} whose header has no size", "corrupt")
        if header.pixels > self._settings.max_pixels:
            return too_many_pixels(name, header.size, self._settings.max_pixels)
        scale = self._scale(header)
        memory = header.memory(scale)
        if memory > self._memory:
            return SampleError(
                f"{name}: decoding a {header.format} of {header.size[0]}x{header.size[1]} pixels "
                f"takes {memory / 2**20:.0f} MiB; allowed: at most {self._memory / 2**20:.0f} "
                "(two thirds of PTFT_MAX_MEMORY_BYTES)",
                "oversized",
            )
        return Picture(data, name, header, memory, header.seconds(scale))

    def decode(self, picture: Picture) -> NDArray[np.uint8] | SampleError:
        """Pixels as the model takes them, uint8 (H, W, 3), or why there are none."""
        return _alone(picture, lambda: self._preprocess.pixels(self._upright(picture)))

    def decode_framed(self, picture: Picture) -> tuple[NDArray[np.uint8], Frame] | SampleError:
        """The same, and how the upright picture lies in them."""

        def framed() -> tuple[NDArray[np.uint8], Frame]:
            preprocess, image = self._preprocess, self._upright(picture)
            size = self._upright_size(picture, image)
            frame = frame_of(size, preprocess.size, preprocess.resize_mode)
            return preprocess.pixels(image), frame

        return _alone(picture, framed)

    def _upright(self, picture: Picture) -> Image.Image:
        header = picture.header
        return decode_image(
            picture.data,
            name=picture.name,
            max_pixels=header.pixels,
            reading=self._preprocess.reading,
            formats=PILLOW_NAMES[header.format],
            least=self._least(header),
        )

    def _upright_size(self, picture: Picture, image: Image.Image) -> tuple[int, int]:
        """Width and height of the whole picture, of which a JPEG may have been decoded smaller."""
        if picture.header.format != "jpeg" or self._scale(picture.header) == 1:
            return image.size
        width, height = picture.header.size
        turned = self._preprocess.reading.orient and jpeg_orientation(picture.data) >= 5
        return (height, width) if turned else (width, height)

    def _least(self, header: PictureHeader) -> tuple[int, int] | None:
        if header.format != "jpeg" or self._settings.jpeg == "exact":
            return None
        return self._preprocess.least_size(header.size)

    def _scale(self, header: PictureHeader) -> int:
        """By how much each side is reduced: Pillow's own rule."""
        least = self._least(header)
        if least is None:
            return 1
        most = min(header.size[0] // least[0], header.size[1] // least[1])
        return next(scale for scale in _DCT_SCALES if scale <= max(most, 1))


def _alone(picture: Picture, decode: Callable[[], R]) -> R | SampleError:
    """What comes of a picture, or why there is nothing."""
    try:
        return decode()
    except SampleError as error:
        return SampleError(str(error), error.fault)  # without the traceback, which holds pixels
    except Exception as error:  # whatever it is, it concerns this picture alone
        logger.exception("%s", picture.name)
        return SampleError(f"{picture.name}: {type(error).__name__}: {error}")


def decoding_memory(settings: Settings) -> int:
    """Bytes that decoding may take at once."""
    return settings.max_memory_bytes * 2 // 3


def register_heic() -> None:
    """Teach Pillow HEIC; ``read_settings`` has seen that the package is there."""
    import pillow_heif

    pillow_heif.register_heif_opener(thumbnails=False)
