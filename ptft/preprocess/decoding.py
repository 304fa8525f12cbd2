"""From a picture's bytes to upright RGB of 8 bits, which is what everything else starts from.

How a picture is read belongs to a model, as its size and its mean do: :class:`Reading` says which
way up, how deep samples become 8 bits, and what lies behind transparent pixels. An animation (GIF,
WebP, AVIF, PNG) and a TIFF of several pages show their first frame.
"""

import io
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from PIL import Image, ImageFile, UnidentifiedImageError

from ptft.errors import Fault, ModelError, SampleError
from ptft.files.bounds import Bounds
from ptft.preprocess.depth import (
    PngHeader,
    eight_bits,
    is_deep,
    read_png_header,
    refuse_lost_range,
    unread_tiff,
)
from ptft.preprocess.picture_parts import icon_size, needed, orientation_of, turn

__all__ = [
    "MAX_PICTURE",
    "MAX_PIXELS",
    "OLDER",
    "READING",
    "Reading",
    "check_picture_size",
    "decode_image",
    "open_picture",
    "to_rgb",
    "too_many_pixels",
]

MAX_PIXELS = 64_000_000
"""Larger pictures are refused before they are decoded, unless told otherwise."""

MAX_PICTURE = 512 << 20
"""Bytes of a picture's file, or 8 a pixel where more than 64 million are allowed: a TIFF of 64
million pixels of 16 bits a channel has 384 MB."""

# Formats that Pillow reads by itself. Others start programs (EPS) or are of no use here.
FORMATS = ("JPEG", "MPO", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "AVIF", "JPEG2000", "ICO")
_DEPTHS = ("file", "clip")
_KEYS = ("orient", "depth", "background")


@dataclass(frozen=True)
class Reading:
    """How what a file stores becomes upright RGB of 8 bits a channel.

    Attributes:
        orient: turned as EXIF's Orientation says (:func:`ptft.preprocess.picture_parts.turn`); else
            as the pixels lie, but of a TIFF, which Pillow turns by itself.
        depth: of greyscale of more than 8 bits. ``file``: scaled from the range that the file says
            it has (see :mod:`ptft.preprocess.depth`). ``clip``: samples are cut to 0 to 255, so
            that most turn white; what Pillow's ``convert`` does.
        background: red, green and blue (0 to 255) that transparent pixels are laid on; None: the
            colour that a transparent pixel happens to store shows.
    """

    orient: bool = True
    depth: Literal["file", "clip"] = "file"
    background: tuple[int, int, int] | None = (255, 255, 255)

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> "Reading":
        """Read what :meth:`to_config` gives.

        Raises:
            ModelError: a key is unknown or absent, or a value is not one of those allowed.
        """
        bounds = Bounds(config, "preprocess_cfg.reading.", ModelError)
        bounds.keys(_KEYS, _KEYS)
        bounds.flag("orient")
        bounds.choice("depth", _DEPTHS)
        orient, depth, background = (config[key] for key in _KEYS)
        if background is not None and not _is_colour(background):
            bounds.refuse("background", background, "null, or three whole numbers from 0 to 255")
        return cls(orient, depth, None if background is None else tuple(background))

    def to_config(self) -> dict[str, Any]:
        """Keys and values as JSON has them."""
        background = None if self.background is None else list(self.background)
        return {"orient": self.orient, "depth": self.depth, "background": background}

    @property
    def words(self) -> str:
        """The same in a sentence, for cards and files that take pictures already decoded."""
        orient = "upright by EXIF" if self.orient else "as the pixels are stored, EXIF ignored"
        depth = "scaled" if self.depth == "file" else "cut"
        if self.background is None:
            alpha = "transparency dropped"
        else:
            alpha = "transparent pixels on #" + "".join(f"{one:02x}" for one in self.background)
        return f"RGB of 8 bits: {orient}, deeper samples {depth} to 8 bits, {alpha}"


READING = Reading()
"""Of a model that is new, and of whatever is read without one."""

OLDER = Reading(orient=False, depth="clip", background=None)
"""Of models from before a model said how it reads; in their files no word stands for it."""


def decode_image(
    data: bytes,
    *,
    name: str,
    max_pixels: int = MAX_PIXELS,
    reading: Reading = READING,
    formats: Collection[str] | None = None,
    least: tuple[int, int] | None = None,
) -> Image.Image:
    """Decode an encoded picture: mode RGB, of its full size, and nothing else in it (no ``info``).

    Equal to Pillow's ``convert("RGB")`` bit for bit where the file holds 8 bits or fewer a sample,
    no transparent pixel and no orientation; else see ``reading``.

    Args:
        data: bytes of a JPEG, PNG, WebP, GIF, BMP, TIFF, PPM, AVIF, JPEG 2000 or ICO file.
        name: of the sample, for the message.
        max_pixels: larger pictures are refused before they are decoded.
        reading: of the model that the picture is for.
        formats: Pillow's names of those that may be opened; all of ``FORMATS`` by default.
        least: width and height, as stored, that suffice: a JPEG of twice the size or more is
            reduced by 2, 4 or 8 while it is decoded (libjpeg's DCT scaling), never below them. The
            pixels are then others than of the whole picture, see ``ImagePreprocess.least_size``.

    Raises:
        SampleError: naming the sample; the bytes are no whole picture, too large a one, or one
            whose samples lie outside the range that they can be known to have.
    """
    try:
        _check_size(icon_size(data), max_pixels)
        with open_picture(data, formats) as image:
            _check_size(image.size, max_pixels)
            if least is not None:
                image.draft(None, least)  # of other formats it changes nothing
            rgb = to_rgb(image, reading, read_png_header(data))
            rgb.info = {}  # nobody turns it again, or takes one of its colours for transparent
            return rgb
    except SampleError as error:
        raise SampleError(f"{name}: {error}", error.fault) from None
    except UnidentifiedImageError:
        if (tiff := unread_tiff(data)) is not None:
            raise SampleError(
                f"{name}: {tiff}, which Pillow does not open; allowed: 8 or 16 bits a channel, or "
                "greyscale of 32-bit integer or float samples"
            ) from None
        fault: Fault = "corrupt" if data else "empty"
        raise SampleError(f"{name}: not a picture ({len(data)} bytes)", fault) from None
    except Exception as error:  # a decoder may raise anything on broken bytes
        raise SampleError(f"{name}: {_told(error)}") from None


def _told(error: Exception) -> str:
    """What a decoder raised; some say nothing with it."""
    what = " ".join(str(error).split())
    return f"{type(error).__name__}: {what}" if what else "not decoded: its bytes are broken"


def open_picture(data: bytes, formats: Collection[str] | None = None) -> ImageFile.ImageFile:
    """Pillow's picture of a file's bytes, which is not decoded yet (an ICO is).

    Args:
        formats: Pillow's names of those that may be opened; all of ``FORMATS`` by default.

    Raises:
        SampleError: it has too many parts (:mod:`ptft.preprocess.picture_parts`); the message does
            not name the sample.
        Exception: whatever Pillow raises where the bytes are none that it opens.
    """
    allowed = _available() if formats is None else list(formats)
    return Image.open(io.BytesIO(needed(data)), formats=allowed)


def to_rgb(
    image: Image.Image, reading: Reading = READING, png: PngHeader | None = None
) -> Image.Image:
    """Pillow's picture as ``reading`` has it, mode RGB; the same object where it is that already.

    Args:
        png: what the file says beyond Pillow, where it is a PNG and its bytes are known.

    Raises:
        SampleError: see ``decode_image``; the message does not name the sample.
    """
    bare = image.mode == "RGB" and not image.info and not isinstance(image, ImageFile.ImageFile)
    if bare:
        return image
    image.load()
    orientation = orientation_of(image) if reading.orient else 1
    if is_deep(image):
        rgb = _from_deep(image, reading, png)
    else:
        if reading.depth == "file":
            refuse_lost_range(image, png)
        rgb = _on_background(image, reading.background, png)
    return turn(rgb, orientation)


def check_picture_size(name: str, size: int, max_pixels: int) -> None:
    """Hold a picture's file to bounds before it is read. Raises SampleError."""
    most = max(MAX_PICTURE, 8 * max_pixels)
    if size > most:
        raise SampleError(f"{name}: {size:,} bytes; allowed: {most:,}", "oversized")


def too_many_pixels(name: str, size: tuple[int, int], max_pixels: int) -> SampleError:
    """What is wrong with a picture of this width and height."""
    return SampleError(f"{name}: {_too_many(size, max_pixels)}", "oversized")


def _check_size(size: tuple[int, int], max_pixels: int) -> None:
    if size[0] * size[1] > max_pixels:
        raise SampleError(_too_many(size, max_pixels), "oversized")


def _too_many(size: tuple[int, int], max_pixels: int) -> str:
    return f"{size[0]}x{size[1]} pixels; allowed: at most {max_pixels}"


def _from_deep(image: Image.Image, reading: Reading, png: PngHeader | None) -> Image.Image:
    """Greyscale of more than 8 bits; a PNG may say which of its samples is transparent."""
    grey = eight_bits(image, png) if reading.depth == "file" else image
    rgb = grey.convert("RGB")
    key = image.info.get("transparency")
    if reading.background is not None and isinstance(key, int):
        rgb.paste(reading.background, mask=Image.fromarray(np.asarray(image) == key))
    return rgb


def _on_background(
    image: Image.Image, background: tuple[int, int, int] | None, png: PngHeader | None
) -> Image.Image:
    if image.mode == "La":
        image = image.convert("LA")  # the only mode that Pillow takes it to
    if background is None or not image.has_transparency_data:
        if image.mode == "P" and "transparency" in image.info:
            image.apply_transparency()  # Pillow warns otherwise; the colours stay
        return image.convert("RGB")
    if png is not None and image.mode in ("L", "RGB"):
        image.info["transparency"] = _key_of_eight_bits(image.info["transparency"], png.depth)
    below = Image.new("RGBA", image.size, (*background, 255))
    return Image.alpha_composite(below, image.convert("RGBA")).convert("RGB")


def _key_of_eight_bits(key: Any, depth: int) -> Any:
    """The transparent sample or colour of a PNG, which Pillow leaves at the file's own depth though
    it scales the pixels: of 16 bits the upper 8 count, since Pillow has dropped the others."""
    if isinstance(key, tuple):
        return tuple(_key_of_eight_bits(one, depth) for one in key)
    return key >> 8 if depth == 16 else (key & (1 << depth) - 1) * 255 // ((1 << depth) - 1)


def _is_colour(value: Any) -> bool:
    return (
        isinstance(value, list | tuple)
        and len(value) == 3
        and all(type(one) is int and 0 <= one <= 255 for one in value)
    )


def _available() -> list[str]:
    Image.init()
    return [name for name in FORMATS if name in Image.OPEN]
