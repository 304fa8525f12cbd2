"""Which files are pictures, by the endings of their names.

What a file really is shows by its bytes when it is decoded; an ending only decides whether it is
looked at, so that a picture under a usual ending is never passed over.
"""

from ptft.errors import SampleError

__all__ = [
    "IMAGE_EXTENSIONS",
    "MAX_PICTURE",
    "begins_like_picture",
    "check_picture_size",
    "is_picture",
]

MAX_PICTURE = 512 << 20
"""Bytes of a picture's file, or 8 a pixel where more than 64 million are allowed: a TIFF of 64
million pixels of 16 bits a channel has 384 MB."""

IMAGE_EXTENSIONS = (
    *("jpg", "jpeg", "png", "webp", "bmp"),
    *("jpe", "jfif", "mpo", "apng", "gif", "dib", "tif", "tiff"),
    *("ppm", "pgm", "pbm", "pnm", "pfm", "avif", "avifs"),
    *("jp2", "j2k", "jpc", "jpf", "jpx", "j2c", "ico"),
)
"""Endings, lower case and without the dot, of all formats that ``decode_image`` reads; where a
sample of a tar has several pictures, the first of these is its picture."""

_ENDINGS = frozenset(IMAGE_EXTENSIONS)


_BEGINNINGS = (
    *(b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF8", b"BM", b"II*\0", b"MM\0*", b"\0\0\1\0"),
    *(b"\0\0\0\x0cjP  ", b"\xff\x4f\xff\x51"),  # JPEG 2000, in a box or bare
    *(b"II+\0", b"MM\0+"),  # TIFF beyond 4 GiB
)


def begins_like_picture(data: bytes) -> bool:
    """Whether bytes begin as a file of one of the formats does."""
    if data.startswith(_BEGINNINGS):
        return True
    return (
        (data[:4] == b"RIFF" and data[8:12] == b"WEBP")
        or data[4:8] == b"ftyp"
        or (data[:1] == b"P" and data[1:2] in b"123456fFy" and data[2:3].isspace())
    )


def check_picture_size(name: str, size: int, max_pixels: int) -> None:
    """Hold a picture's file to bounds before it is read. Raises SampleError."""
    most = max(MAX_PICTURE, 8 * max_pixels)
    if size > most:
        raise SampleError(f"{name}: {size:,} bytes; allowed: {most:,}", "oversized")


def is_picture(name: str) -> bool:
    """Whether the name of a file ends as a picture's does, in any case."""
    stem, dot, ending = name.rpartition(".")
    return bool(stem and dot) and ending.lower() in _ENDINGS
