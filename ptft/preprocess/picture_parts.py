"""What a picture's file holds beside its pixels: counted, and left out where nobody reads it.

Decoders take what somebody wrote at its word. Pillow walks segments, chunks and blocks one by one
in Python, keeps some of each, and unpacks a PNG's texts and colour profile; libjpeg reads all of a
picture's blocks again for each scan, of which some 80 bytes make one. So files of a few bytes a
part take minutes or hundreds of megabytes, whatever the size of their picture. Here a file is
walked once, as far as its kind can do that, before a decoder sees it.

Texts and colour profiles of a PNG are left out of what the decoder gets: they change no pixel (of
those that name an orientation the last counts, and stays).
"""

import re
import struct
from collections.abc import Callable
from typing import NoReturn

from ptft.errors import SampleError

__all__ = ["icon_size", "needed"]

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
