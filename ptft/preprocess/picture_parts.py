"""What a picture's file holds beside its pixels: counted, left out where nobody reads it, and of it
which way up the picture is.

Decoders take what somebody wrote at its word. Pillow walks segments, chunks and blocks one by one
in Python, keeps some of each, and unpacks a PNG's texts and colour profile; libjpeg reads all of a
picture's blocks again for each scan, of which some 80 bytes make one. So files of a few bytes a
part take minutes or hundreds of megabytes, whatever the size of their picture. Here a file is
walked once, as far as its kind can do that, before a decoder sees it.

Texts and colour profiles of a PNG are left out of what the decoder gets: they change no pixel (of
those that name an orientation the last counts, and stays).

EXIF's Orientation (tag 0x0112) says how the stored rows and columns lie, by a number from 1 to 8;
1, and whatever is none of the eight, is upright as stored. Where a file has no EXIF of that kind,
Pillow looks into its XMP, and takes what AVIF states in its own boxes (``irot``, ``imir``) for it.
"""

import io
import re
import struct
from collections.abc import Callable
from typing import NoReturn

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ptft.errors import SampleError

__all__ = [
    "icon_size",
    "jpeg_orientation",
    "needed",
    "orientation_of",
    "turn",
    "turn_pixels",
]

_SCANS = 100  # of a JPEG; those who make the most of progression use some 20
_SEGMENTS = 1024  # of a JPEG; a profile has up to 255, a depth map of 64 MB as XMP a thousand
_PARTS, _BYTES_A_PART = 4096, 128  # of a PNG and a GIF: so many, and one more for so many bytes
_TAGS = 4096  # of a TIFF's directory
_ICONS = 1024  # of an ICO

_FILL = re.compile(rb"\xff*")
_MARKER = re.compile(rb"\xff+[^\x00\xd0-\xd7\xff]")  # behind a scan's data
_ALONE = frozenset({0x00, 0x01, *range(0xD0, 0xDA)})  # of JPEG's markers, those without a length
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_SCAN, _END = 0xDA, 0xD9
_ONE_SCAN = frozenset({0xC0, 0xC1})

_CHUNK = struct.Struct(">I4s")
_SAYS = frozenset({b"tEXt", b"zTXt", b"iTXt"})
_READ = frozenset({b"Raw profile type exif", b"XML:com.adobe.xmp"})  # Pillow's, for an orientation

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
# That Pillow looks into
_SOURCES = ("exif", "Raw profile type exif", "xmp", "XML:com.adobe.xmp")
_SHORT = 3  # EXIF's type of a number of 16 bits
_APP1 = 0xE1  # JPEG's marker of EXIF and XMP
_SPELLINGS = (b"\x01\x12", b"\x12\x01", b"tiff:Orientation")  # the tag in either byte order; XMP's


def needed(data: bytes) -> bytes:
    """The bytes of a picture that a decoder needs: all of them, but of a PNG with texts.

    Raises:
        SampleError: it has more parts than any that shows something; the message does not name the
            sample.
    """
    if data.startswith(b"\xff\xd8\xff"):
        _check_jpeg(data)
    elif data.startswith(b"\x89PNG\r\n\x1a\n"):
        return _without_texts(data)
    elif data.startswith((b"GIF87a", b"GIF89a")):
        _within(_check_gif, data)
    elif data.startswith((b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")):
        _within(_check_tiff, data)
    elif data.startswith(b"BM"):
        _within(_check_bmp, data)
    return data


def icon_size(data: bytes) -> tuple[int, int]:
    """Width and height of the largest picture in an ICO, which is decoded when it is opened; (0, 0)
    of anything else.

    Raises:
        SampleError: it has more than anybody draws.
    """
    best = (0, 0)
    if not data.startswith(b"\0\0\1\0") or len(data) < 6:
        return best
    (count,) = struct.unpack_from("<H", data, 4)
    if count > _ICONS:
        _refuse(f"an ICO of {count} pictures", _ICONS)
    for at in range(6, min(6 + 16 * count, len(data) - 15), 16):
        size, place = struct.unpack_from("<II", data, at + 8)
        inner = data[place : place + min(size, 32)]
        if inner.startswith(b"\x89PNG") and len(inner) >= 24:
            best = max(best, struct.unpack_from(">II", inner, 16), key=_area)
        elif len(inner) >= 12:  # a BMP without its file's header; its height counts the mask too
            width, height = struct.unpack_from("<ii", inner, 4)
            best = max(best, (abs(width), abs(height) // 2), key=_area)
    return best


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
        data: that :func:`needed` has held to its bounds.

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


def _area(size: tuple[int, int]) -> int:
    return size[0] * size[1]


def _refuse(found: str, allowed: int) -> NoReturn:
    raise SampleError(f"{found}; allowed: at most {allowed}")


def _within(check: Callable[[bytes], None], data: bytes) -> None:
    """A file that ends before its parts do is its decoder's to refuse."""
    try:
        check(data)
    except (struct.error, IndexError):
        return


def _check_jpeg(data: bytes) -> None:
    """Segments up to the first scan, which Pillow walks, and scans, where there are several."""
    at, parts, scans = 2, 0, 0
    channels, several = 0, False
    while (start := data.find(b"\xff", at)) >= 0:
        filled = _FILL.match(data, start)
        place = filled.end() if filled else start
        if place >= len(data):
            return
        marker = data[place]
        parts += 1 + (start - at) + (place - start - 1)  # junk and filling are walked by the byte
        if parts > _SEGMENTS:
            _refuse("a JPEG of so many segments, or bytes between them", _SEGMENTS)
        at = place + 1
        if marker in _ALONE:
            if marker == _END and scans:
                return
            continue
        if at + 6 >= len(data):
            return
        if marker in _FRAMES and not channels:
            channels, several = data[at + 7], marker not in _ONE_SCAN
        if marker != _SCAN:
            at += data[at] << 8 | data[at + 1]
            continue
        scans += 1
        if scans > _SCANS:
            _refuse("a JPEG of so many scans", _SCANS)
        if not several and data[at + 2] >= channels:
            return  # libjpeg ends behind it
        found = _MARKER.search(data, at + (data[at] << 8 | data[at + 1]))
        if found is None:
            return
        at = found.start()


def _without_texts(data: bytes) -> bytes:
    most = _PARTS + len(data) // _BYTES_A_PART
    kept: list[bytes] = []
    first, at, parts = 0, 8, 0
    while at + 12 <= len(data):
        length, kind = _CHUNK.unpack_from(data, at)
        end = at + 12 + length
        parts += 1
        if parts > most:
            _refuse("a PNG of so many chunks", most)
        if kind == b"IEND":
            break
        said = kind in _SAYS and data[at + 8 : at + 88].partition(b"\0")[0] not in _READ
        if (said or kind == b"iCCP") and end <= len(data):
            kept.append(data[first:at])
            first = end
        at = end
    return b"".join([*kept, data[first:]]) if kept else data


def _check_gif(data: bytes) -> None:
    """Blocks up to the first frame; what comes behind it is not read."""
    most = _PARTS + len(data) // _BYTES_A_PART
    flags = data[10]
    at, parts = 13 + (3 * 2 ** ((flags & 7) + 1) if flags & 0x80 else 0), 0
    while data[at] not in b",;":
        parts += 1
        if data[at] == 0x21:  # an extension, in blocks
            at += 2
            while data[at] and parts <= most:
                at += 1 + data[at]
                parts += 1
        if parts > most:
            _refuse("a GIF of so many blocks", most)
        at += 1


def _check_tiff(data: bytes) -> None:
    """Tags of the first picture, and the strips or tiles that they say it lies in."""
    order, large = "<" if data[:2] == b"II" else ">", 43 in data[2:4]
    head, entry = ("Q", "HHQQ") if large else ("H", "HHII")
    (at,) = struct.unpack_from(order + ("Q" if large else "I"), data, 8 if large else 4)
    (count,) = struct.unpack_from(order + head, data, at)
    if count > _TAGS:
        _refuse(f"a TIFF of {count} tags", _TAGS)
    found = {256: 0, 257: 0, 277: 1, 273: 0, 324: 0}  # width, height, samples, strips, tiles
    step, at = struct.calcsize("=" + entry), at + struct.calcsize("=" + head)
    for place in range(at, at + step * count, step):
        tag, kind, values, _ = struct.unpack_from(order + entry, data, place)
        if tag in (273, 324):
            found[tag] = values
        elif tag in found:
            number = order + {3: "H", 16: "Q"}.get(kind, "I")
            (found[tag],) = struct.unpack_from(number, data, place + (12 if large else 8))
    width, height, samples, strips, tiles = found.values()
    least = height + width * height // 256 + (width + height) // 16 + 2  # strips of a row, tiles
    if max(strips, tiles) > (most := max(samples, 1) * least):  # of 16 x 16
        _refuse(f"a TIFF of {width}x{height} pixels in {max(strips, tiles)} pieces", most)


def _check_bmp(data: bytes) -> None:
    """Bytes of one that is coded in runs, which Pillow decodes in Python, whether they give pixels
    or not."""
    offset, length, width, height = struct.unpack_from("<IIii", data, 10)
    if length < 40 or struct.unpack_from("<I", data, 30)[0] not in (1, 2):
        return
    most = 2 * abs(width) * abs(height) + 4 * abs(height) + 65_536  # and what is put behind it
    if len(data) - offset > most:
        _refuse(
            f"a BMP of {abs(width)}x{abs(height)} pixels in runs of {len(data) - offset} bytes",
            most,
        )


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
