"""What a picture will cost, read from its first bytes: its format, its size, what a decoder takes.

Nothing is decoded here. Pillow opens most files lazily, but not all: a WebP's canvas is allocated
when it is opened, an icon is even decoded; so what is not to be decoded must not be opened.

``BYTES_A_PIXEL`` is what reading a file of each format as upright RGB allocates at its peak, laying
it on a background included where the header does not exclude that it is transparent;
``NS_A_PIXEL`` the CPU time, resizing included. Measured at 5 and 16 megapixels with Pillow 13, the
dearest kind of file of each format; tests/preprocess/test_picture_header.py holds the bytes.
"""

import struct
from dataclasses import dataclass

__all__ = [
    "BYTES_A_PIXEL",
    "NS_A_PIXEL",
    "PILLOW_NAMES",
    "PictureHeader",
    "format_of",
    "read_header",
]

PILLOW_NAMES = {
    "jpeg": ("JPEG", "MPO"),  # an MPO's first picture
    "png": ("PNG",),
    "webp": ("WEBP",),
    "gif": ("GIF",),
    "bmp": ("BMP",),
    "tiff": ("TIFF",),
    "avif": ("AVIF",),
    "heic": ("HEIF",),
    "jpeg2000": ("JPEG2000",),
}
"""Formats by the names that settings have, and Pillow's names for them."""

BYTES_A_PIXEL = {
    "jpeg": 10,
    "png": 10,
    "webp": 22,
    "gif": 20,
    "bmp": 10,
    "tiff": 22,
    "avif": 22,
    "heic": 24,
    "jpeg2000": 32,
}
NS_A_PIXEL = {
    "jpeg": 11,
    "png": 40,
    "webp": 35,
    "gif": 15,
    "bmp": 10,
    "tiff": 30,
    "avif": 20,
    "heic": 60,
    "jpeg2000": 185,
}

_HEIC_BRANDS = (b"heic", b"heix", b"hevc", b"heim", b"heis", b"hevm", b"hevs", b"mif1", b"msf1")
_AVIF_BRANDS = (b"avif", b"avis")
_COEFFICIENTS = 8  # bytes a pixel: 16 bits of each of up to four channels
_ALPHA = 10  # bytes a pixel of laying it on a background
_NS_SCAN, _NS_SCANS = 2.5, 10.0  # CPU time a pixel of reading them; in a dozen scans as people have
_NS_EMPTY_SCAN = 0.6  # of one that says nothing: libjpeg goes over all blocks again
_NS_RUNS = 250  # CPU time a pixel of the dearest BMP in runs: each of one pixel
_BOXES = 1 << 16  # bytes of an AVIF or HEIC in which its items are described


@dataclass(frozen=True)
class PictureHeader:
    """Of one file.

    Attributes:
        format: a key of :data:`PILLOW_NAMES`.
        size: width and height of what is decoded, in pixels; (0, 0) where only the decoder knows.
        alpha: of a PNG or BMP, whether pixels may be transparent.
        runs: of a BMP, whether it is coded in runs, which Pillow decodes in Python.
        scans: of a JPEG, in how many it is decoded; 0 where all of it is in one. Where there are
            several, all coefficients are held until the last, whatever it is reduced to.
    """

    format: str
    size: tuple[int, int]
    scans: int = 0
    alpha: bool = False
    runs: bool = False

    @property
    def pixels(self) -> int:
        """Width times height."""
        return self.size[0] * self.size[1]

    def memory(self, scale: int = 1) -> int:
        """Bytes that decoding allocates at its peak, each side reduced by ``scale``."""
        whole = (_COEFFICIENTS if self.scans else 0) + (_ALPHA if self.alpha else 0)
        return self.pixels * BYTES_A_PIXEL[self.format] // scale**2 + self.pixels * whole

    def seconds(self, scale: int = 1) -> float:
        """CPU seconds of decoding; reading a JPEG's coefficients takes the same at every scale."""
        pixels = _NS_RUNS if self.runs else NS_A_PIXEL[self.format] / scale**2
        coefficients = 0.0 if self.format != "jpeg" else _NS_SCAN
        if self.scans:
            coefficients = _NS_SCANS + _NS_EMPTY_SCAN * self.scans
        return self.pixels * (pixels + coefficients) * 1e-9


def read_header(data: bytes) -> PictureHeader | None:
    """Format and size of a picture's bytes; None where they are none of :data:`PILLOW_NAMES`.

    A file that is broken behind its first bytes gives a size of (0, 0): its decoder will say what
    is wrong with it.
    """
    name = format_of(data)
    if name is None:
        return None
    try:
        if name == "jpeg":
            return PictureHeader(name, *_jpeg(data))
        alpha = name in _ALPHAS and _ALPHAS[name](data)
        runs = name == "bmp" and _bmp_runs(data)
        return PictureHeader(name, _SIZES[name](data), alpha=alpha, runs=runs)
    except (struct.error, IndexError, ValueError):
        return PictureHeader(name, (0, 0))


def format_of(data: bytes) -> str | None:
    """A key of :data:`PILLOW_NAMES`, by a file's first bytes; None where they are none."""
    start = data[:16]
    if start.startswith(b"\xff\xd8\xff"):
        return "jpeg"
    if start.startswith(b"\x89PNG\r\n\x1a\n"):
        return "png"
    if start[:4] == b"RIFF" and start[8:12] == b"WEBP":
        return "webp"
    if start[:6] in (b"GIF87a", b"GIF89a"):
        return "gif"
    if start[:2] == b"BM":
        return "bmp"
    if start[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        return "tiff"
    if start[:12] == b"\0\0\0\x0cjP  \r\n\x87\n" or start[:4] == b"\xff\x4f\xff\x51":
        return "jpeg2000"
    return _box_format(data) if start[4:8] == b"ftyp" else None


def _box_format(data: bytes) -> str | None:
    (length,) = struct.unpack_from(">I", data)
    brands = data[8 : min(max(length, 16), 256)]
    if any(brand in brands for brand in _AVIF_BRANDS):
        return "avif"
    return "heic" if any(brand in brands for brand in _HEIC_BRANDS) else None


def _png(data: bytes) -> tuple[int, int]:
    width, height = struct.unpack_from(">II", data, 16)
    return width, height


def _png_alpha(data: bytes) -> bool:
    """A channel of its own, or colours that are transparent (tRNS)."""
    at = 33  # behind IHDR
    while data[25] not in (4, 6):
        (length,) = struct.unpack_from(">I", data, at)
        if data[at + 4 : at + 8] in (b"IDAT", b"IEND"):
            return False
        if data[at + 4 : at + 8] == b"tRNS":
            return True
        at += 12 + length
    return True


def _gif(data: bytes) -> tuple[int, int]:
    """The larger of the screen and the first frame: Pillow makes the screen fit."""
    width, height, flags = struct.unpack_from("<HHB", data, 6)
    at = 13 + (3 * 2 ** ((flags & 7) + 1) if flags & 0x80 else 0)
    while data[at] == 0x21:  # an extension, in blocks
        at += 2
        while data[at]:
            at += 1 + data[at]
        at += 1
    if data[at] == 0x2C:
        left, top, wide, high = struct.unpack_from("<HHHH", data, at + 1)
        width, height = max(width, left + wide), max(height, top + high)
    return width, height


def _bmp(data: bytes) -> tuple[int, int]:
    (length,) = struct.unpack_from("<I", data, 14)
    width, height = struct.unpack_from("<HH" if length == 12 else "<ii", data, 18)
    return abs(width), abs(height)


def _bmp_alpha(data: bytes) -> bool:
    (bits,) = struct.unpack_from("<H", data, 28)
    return bits == 32


def _bmp_runs(data: bytes) -> bool:
    (length,) = struct.unpack_from("<I", data, 14)
    return length >= 40 and struct.unpack_from("<I", data, 30)[0] in (1, 2)  # RLE8, RLE4


def _webp(data: bytes) -> tuple[int, int]:
    kind = data[12:16]
    if len(data) < 30:
        return 0, 0
    if kind == b"VP8X":
        wide = int.from_bytes(data[24:27], "little") + 1
        return wide, int.from_bytes(data[27:30], "little") + 1
    if kind == b"VP8L":
        (bits,) = struct.unpack_from("<I", data, 21)
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    width, height = struct.unpack_from("<HH", data, 26)
    return width & 0x3FFF, height & 0x3FFF


def _jpeg(data: bytes) -> tuple[tuple[int, int], int]:
    """Size, and the number of scans where there are several: progressive, or a channel a scan."""
    at, frame = 2, ((0, 0), 0, 0)
    while True:
        while data[at] == 0xFF:
            at += 1
        marker = data[at]
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            height, width, channels = struct.unpack_from(">HHB", data, at + 4)
            frame = (width, height), channels, marker
        if marker == 0xDA:
            size, channels, kind = frame
            several = kind not in (0xC0, 0xC1) or data[at + 3] < channels
            return size, data.count(b"\xff\xda", at - 1) if several else 0
        at += 1
        if not 0xD0 <= marker <= 0xD7:
            at += struct.unpack_from(">H", data, at)[0]
        at = data.index(b"\xff", at)


def _jpeg2000(data: bytes) -> tuple[int, int]:
    at = data.index(b"\xff\x4f\xff\x51") + 8
    right, bottom, left, top = struct.unpack_from(">IIII", data, at)
    return max(right - left, 0), max(bottom - top, 0)


def _boxes(data: bytes) -> tuple[int, int]:
    """The largest extent (``ispe``) of any item: tiles are smaller than what they make up."""
    best, at = (0, 0), data.find(b"ispe", 0, _BOXES)
    while at >= 0:
        found = struct.unpack_from(">II", data, at + 8)
        best = max(best, found, key=lambda size: size[0] * size[1])
        at = data.find(b"ispe", at + 4, _BOXES)
    return best


def _tiff(data: bytes) -> tuple[int, int]:
    order = "<" if data[:2] == b"II" else ">"
    if data[2:4] in (b"+\0", b"\0+"):
        return 0, 0
    (at,) = struct.unpack_from(order + "I", data, 4)
    (count,) = struct.unpack_from(order + "H", data, at)
    found = {0x100: 0, 0x101: 0}
    for place in range(at + 2, at + 2 + 12 * count, 12):
        tag, kind = struct.unpack_from(order + "HH", data, place)
        if tag in found:
            (found[tag],) = struct.unpack_from(order + ("H" if kind == 3 else "I"), data, place + 8)
    return found[0x100], found[0x101]


_SIZES = {
    "png": _png,
    "webp": _webp,
    "gif": _gif,
    "bmp": _bmp,
    "tiff": _tiff,
    "avif": _boxes,
    "heic": _boxes,
    "jpeg2000": _jpeg2000,
}
_ALPHAS = {"png": _png_alpha, "bmp": _bmp_alpha}
