"""Which way up a picture is: EXIF's Orientation, and the turns and mirrors that undo it.

The tag (0x0112, a number from 1 to 8) says how the stored rows and columns lie; 1, and whatever is
none of the eight, is upright as stored. Where a file has no EXIF of that kind, Pillow looks into
its XMP, and takes what AVIF states in its own boxes (``irot``, ``imir``) for it.
"""

import io
import struct

import numpy as np
from numpy.typing import NDArray
from PIL import Image

__all__ = ["jpeg_orientation", "orientation_of", "turn", "turn_pixels"]

_TAG = 0x0112
_TURNS = {  # as PIL.ImageOps.exif_transpose has them
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_SOURCES = ("exif", "Raw profile type exif", "xmp", "XML:com.adobe.xmp")  # that Pillow looks into
_SHORT = 3  # EXIF's type of a number of 16 bits
_APP1, _SCAN = 0xE1, 0xDA  # JPEG's markers of EXIF and XMP, and of the first scan
_SPELLINGS = (b"\x01\x12", b"\x12\x01", b"tiff:Orientation")  # the tag in either byte order; XMP's


def orientation_of(image: Image.Image) -> int:
    """1 to 8 as EXIF says; 1 where it says nothing, something else, or cannot be read.

    Args:
        image: decoded, or of a JPEG opened: a PNG may tell behind its pixels, and a TIFF Pillow
            turns by itself as it decodes it.
    """
    if not any(image.info.get(key) for key in _SOURCES):  # pillow-heif has keys of nothing
        return 1
    known = _plain_orientation(image.info.get("exif") or b"")
    if known is not None:
        return known if known in _TURNS else 1
    try:
        value = image.getexif().get(_TAG, 1)
        return int(value) if value in _TURNS else 1
    except Exception:  # broken EXIF breaks Pillow's reader in many ways, and no picture
        return 1


def jpeg_orientation(data: bytes) -> int:
    """The same of a JPEG's bytes, within microseconds; what is unusual about them Pillow reads.

    Args:
        data: that ``ptft.preprocess.picture_parts`` has held to its bounds.

    Raises:
        Exception: whatever Pillow raises where the bytes are none that it opens.
    """
    found = _hints(data)
    if found == []:
        return 1
    if found is not None and len(found) == 1:
        known = _plain_orientation(found[0])
        if known is not None:
            return known if known in _TURNS else 1
    with Image.open(io.BytesIO(data), formats=("JPEG", "MPO")) as image:
        return orientation_of(image)


def turn(image: Image.Image, orientation: int) -> Image.Image:
    """The picture upright, given how it lies."""
    method = _TURNS.get(orientation)
    return image if method is None else image.transpose(method)


def turn_pixels(pixels: NDArray[np.uint8], orientation: int) -> NDArray[np.uint8]:
    """The same of an array, uint8 (h, w, 3) to (H, W, 3), contiguous."""
    if orientation not in _TURNS:
        return pixels
    if orientation in (2, 3, 7, 8):
        pixels = pixels[:, ::-1]
    if orientation in (3, 4, 6, 7):
        pixels = pixels[::-1]
    if orientation >= 5:
        pixels = pixels.transpose(1, 0, 2)
    return np.ascontiguousarray(pixels)


def _hints(data: bytes) -> list[bytes] | None:
    """The segments before the first scan that might hold the tag, without their length; None where
    the bytes are not segments one after the other until a scan begins."""
    found: list[bytes] = []
    at = 2
    try:
        while data[at] == 0xFF:
            marker = data[at + 1]
            if marker == _SCAN:
                return found
            if marker == 0xFF:  # filling before a marker
                at += 1
                continue
            end = at + 2 + (data[at + 2] << 8 | data[at + 3])
            if marker == _APP1 and any(data.find(one, at, end) >= 0 for one in _SPELLINGS):
                found.append(data[at + 4 : end])
            at = end
    except IndexError:  # it ends before a scan begins
        pass
    return None


def _plain_orientation(segment: bytes) -> int | None:
    """The number in the first directory of an EXIF segment, whatever else in it is broken (which
    stops Pillow); None where Pillow has to look, or where it is not there."""
    order = {b"Exif\0\0II*\0": "<", b"Exif\0\0MM\0*": ">"}.get(segment[:10])
    if order is None:
        return None
    try:
        (at,) = struct.unpack_from(order + "I", segment, 10)
        (count,) = struct.unpack_from(order + "H", segment, 6 + at)
        entry = struct.Struct(order + "HHIH")
        for place in range(8 + at, 8 + at + 12 * count, 12):
            tag, kind, values, value = entry.unpack_from(segment, place)
            if tag == _TAG:
                return int(value) if (kind, values) == (_SHORT, 1) else None
    except struct.error:  # it points beyond its end
        pass
    return None
