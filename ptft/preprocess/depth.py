"""Greyscale of more than 8 bits as 8: which range the file says it has, and the scaling.

A sample ``v`` between ``low`` and ``high`` becomes 255 * (v - low) / (high - low), rounded to the
nearest whole number, halves up, so that of 16 bits v * 257 reads as v. The range is the file's own:

==================  ================================================================================
16 bits             0 to 65535
PNG with sBIT       0 to 2^sBIT - 1 where the samples lie as they were measured (12 bits in 16); a
                    file that has scaled them to 16 bits, as the PNG specification asks for, is read
                    as 16 bits
PGM, JPEG 2000      0 to the file's maximum, which Pillow has scaled to 16 bits
TIFF of 9 to 15     0 to 2^bits - 1
TIFF, signed        0 to 127 of 8 bits, 0 to 32767 of 16
32-bit integers     0 to 65535
floating point      0 to 1
TIFF that declares  SMinSampleValue to SMaxSampleValue, MinSampleValue to MaxSampleValue
==================  ================================================================================

What lies outside is refused: where it should have been black or white is not known. The window of
a DICOM file (its centre, width and rescale slope) is not read, nor is DICOM; whoever turns one into
PNG or TIFF has to apply it.
"""

import io
import struct
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, TiffImagePlugin

from ptft.errors import SampleError

__all__ = [
    "PngHeader",
    "eight_bits",
    "is_deep",
    "read_png_header",
    "refuse_lost_range",
    "unread_tiff",
]

_MAGIC = b"\x89PNG\r\n\x1a\n"
_COLOURS = {0: 1, 2: 3, 4: 1, 6: 3}  # colour type -> entries of sBIT that are not of the opacity


@dataclass(frozen=True)
class PngHeader:
    """Of a PNG whose samples are no indices into a palette.

    Attributes:
        depth: bits of a sample as stored: 1, 2, 4, 8 or 16.
        significant: how many of these were in the original, by the sBIT chunk; of colours the most
            that a channel has; None where it is absent or says nothing that can be.
    """

    depth: int
    significant: int | None = None


def read_png_header(data: bytes) -> PngHeader | None:
    """The header of a PNG's bytes; None of anything else, of a palette, and of a broken one."""
    if not data.startswith(_MAGIC) or data[12:16] != b"IHDR" or len(data) < 33:
        return None
    depth, colour = data[24], data[25]
    if colour not in _COLOURS:
        return None
    at = 33  # behind IHDR
    while at + 8 <= len(data):
        (length,) = struct.unpack_from(">I", data, at)
        kind = data[at + 4 : at + 8]
        if kind in (b"IDAT", b"IEND"):
            break
        if kind == b"sBIT":
            bits = data[at + 8 : at + 8 + min(length, _COLOURS[colour])]
            known = bool(bits) and all(0 < one <= depth for one in bits)
            return PngHeader(depth, max(bits) if known else None)
        at += 12 + length
    return PngHeader(depth)


_DEEP = ("I;16", "I;16B", "I;16L", "I;16N", "I", "F")
_WHITE_IS_ZERO = 0
_BIG = 43  # third byte of a BigTIFF in little-endian order
_UNSIGNED, _SIGNED, _FLOAT = 1, 2, 3  # of TIFF's SampleFormat
_BITS, _PHOTOMETRIC, _FORMAT = 258, 262, 339  # TIFF's tags
_MINIMA, _MAXIMA = (340, 280), (341, 281)  # SMinSampleValue, MinSampleValue; SMax..., Max...
_ROWS = 256  # that are scaled at a time: the arithmetic takes 8 bytes a sample
_SLACK = 1e-5  # of a float range, for values that arithmetic left beside its ends


def is_deep(image: Image.Image) -> bool:
    """Greyscale whose samples are not 0 to 255: of more bits, or signed (which Pillow hides)."""
    return image.mode in _DEEP or (image.mode == "L" and _tag(image, _FORMAT) == _SIGNED)


def eight_bits(image: Image.Image, png: PngHeader | None = None) -> Image.Image:
    """Greyscale that ``is_deep`` in mode L.

    Args:
        image: decoded.
        png: what its file says where that is a PNG and known.

    Raises:
        SampleError: samples lie outside the range, or are not finite.
    """
    samples = np.asarray(image)
    if samples.dtype == np.int32 and _tag(image, _FORMAT) == _UNSIGNED:
        samples = samples.view(np.uint32)  # Pillow's mode I is signed
    elif samples.dtype == np.uint8:
        samples = samples.view(np.int8)
    low, high, where = _range(image, samples, png)
    _check(samples, low, high, where, image.mode)
    if image.mode != "L" and _tag(image, _PHOTOMETRIC) == _WHITE_IS_ZERO:  # of L Pillow knows it
        low, high = high, low
    grey = np.empty(samples.shape, np.uint8)
    for start in range(0, len(samples), _ROWS):
        rows = samples[start : start + _ROWS].astype(np.float64)
        scaled = np.floor((rows - low) * (255 / (high - low)) + 0.5)
        grey[start : start + _ROWS] = np.clip(scaled, 0, 255)  # beyond it only by the slack
    return Image.fromarray(grey)


def refuse_lost_range(image: Image.Image, png: PngHeader | None = None) -> None:
    """Colour of 16 bits whose file declares fewer, of which Pillow has kept the upper 8 of 16.

    Args:
        image: decoded, and not deep.
        png: as for ``eight_bits``.

    Raises:
        SampleError: what is left fits the declared range, so that it might be next to nothing.
    """
    if png is not None and png.depth == 16 and png.significant is not None:
        bits, says = png.significant, f"sBIT {png.significant}"
    elif _tag(image, _BITS) == 16 and (declared := _declared(image, _MAXIMA)) is not None:
        bits, says = int(max(declared, 1)).bit_length(), f"MaxSampleValue {declared:g}"
    else:
        return
    if bits >= 16:
        return
    colours = np.asarray(image)[..., : 3 if image.mode in ("RGBA", "RGBa") else None]
    upper = int(colours.max())
    if upper <= ((1 << bits) - 1) >> 8:
        raise SampleError(
            f"colour of 16 bits (mode {image.mode}) of which {says} declares {bits}; allowed: "
            "samples that are scaled to 16 bits, or colour of 8 bits"
        )


def unread_tiff(data: bytes) -> str | None:
    """What an unusual TIFF holds that Pillow does not open, in words; None of anything else."""
    kinds = {_UNSIGNED: "unsigned", _SIGNED: "signed", _FLOAT: "float"}
    try:
        tags = TiffImagePlugin.ImageFileDirectory_v2(data[: 16 if data[2] == _BIG else 8])
        stream = io.BytesIO(data)
        stream.seek(tags.next)
        tags.load(stream)
        bits = tags[_BITS]
    except Exception:  # what is no TIFF, or a broken one, is no news
        return None
    if max(bits) <= 8:
        return None
    kind = kinds.get(_first(tags.get(_FORMAT, _UNSIGNED)), "other")
    return f"a TIFF of {kind} samples of {'+'.join(str(one) for one in bits)} bits"


def _range(
    image: Image.Image, samples: NDArray[Any], png: PngHeader | None
) -> tuple[float, float, str]:
    """Lowest and highest sample that there may be, and where that is from, in words."""
    low, high, where = 0.0, 65535.0, "16 bits"
    bits = _tag(image, _BITS)
    if samples.dtype.kind == "f":
        high, where = 1.0, "float"
    elif bits in (8, 16) and _tag(image, _FORMAT) == _SIGNED:
        high, where = float((1 << int(bits) - 1) - 1), f"signed {bits} bits"
    elif bits is not None and bits < 16:
        high, where = float((1 << int(bits)) - 1), f"{bits} bits"
    elif png is not None and png.significant is not None and _as_measured(samples, png.significant):
        high, where = float((1 << png.significant) - 1), f"sBIT {png.significant}"
    declared = _declared(image, _MINIMA), _declared(image, _MAXIMA)
    if declared != (None, None):
        low = low if declared[0] is None else declared[0]
        high = high if declared[1] is None else declared[1]
        where = "as the file declares"
        if not (np.isfinite([low, high]).all() and low < high):
            raise SampleError(
                f"greyscale that declares samples from {low:g} to {high:g}; allowed: two finite "
                "numbers, the smaller first"
            )
    return low, high, where


def _check(samples: NDArray[Any], low: float, high: float, where: str, mode: str) -> None:
    if samples.dtype.kind == "f" and not np.isfinite(samples).all():
        found = f"{int((~np.isfinite(samples)).sum())} that are no finite numbers"
    else:
        least, most = float(samples.min()), float(samples.max())
        slack = _SLACK * (high - low) if samples.dtype.kind == "f" else 0.0
        if low - slack <= least and most <= high + slack:
            return
        found = f"{least:.10g} to {most:.10g}"
    kind = "float" if samples.dtype.kind == "f" else "integer"
    raise SampleError(
        f"greyscale of {kind} samples (mode {mode}): {found}; allowed: {low:g} to {high:g} "
        f"({where}), or what a TIFF declares in SMinSampleValue and SMaxSampleValue"
    )


def _as_measured(samples: NDArray[Any], bits: int) -> bool:
    """Whether 16-bit samples of so many significant bits lie unscaled in the lower ones.

    A scaled sample has its bits at the top, and below them zeros, the same bits again, or what
    linear scaling gives (the PNG specification, 13.12, leaves the choice).
    """
    most = (1 << bits) - 1
    if bits >= 16 or samples.max() > most:
        return False
    top = samples.astype(np.uint32) >> (16 - bits)
    zeros = top << (16 - bits)
    repeated = sum(zeros >> shift for shift in range(0, 16, bits))
    linear = (top * 65535 + most // 2) // most
    scaled = (samples == zeros) | (samples == repeated) | (samples == linear)
    return not scaled.all()


def _tag(image: Image.Image, tag: int) -> Any:
    """A TIFF's, the first channel's where there are several; None where it has none."""
    return _first(getattr(image, "tag_v2", {}).get(tag))


def _declared(image: Image.Image, names: tuple[int, int]) -> float | None:
    """A range's end, by the first of the tags that is there."""
    found = (_tag(image, name) for name in names)
    value = next((one for one in found if one is not None), None)
    return None if value is None else float(value)


def _first(value: Any) -> Any:
    return next(iter(value), None) if isinstance(value, tuple) else value
