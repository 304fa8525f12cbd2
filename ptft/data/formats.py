"""Which files are pictures, by the endings of their names.

What a file really is shows by its bytes when it is decoded; an ending only decides whether it is
looked at, so that a picture under a usual ending is never passed over.
"""

__all__ = ["IMAGE_EXTENSIONS", "is_picture"]

IMAGE_EXTENSIONS = (
    *("jpg", "jpeg", "png", "webp", "bmp"),
    *("jpe", "jfif", "mpo", "apng", "gif", "dib", "tif", "tiff"),
    *("ppm", "pgm", "pbm", "pnm", "pfm", "avif", "avifs"),
    *("jp2", "j2k", "jpc", "jpf", "jpx", "j2c", "ico"),
)
"""Endings, lower case and without the dot, of all formats that ``decode_image`` reads; where a
sample of a tar has several pictures, the first of these is its picture."""

_ENDINGS = frozenset(IMAGE_EXTENSIONS)


def is_picture(name: str) -> bool:
    """Whether the name of a file ends as a picture's does, in any case."""
    stem, dot, ending = name.rpartition(".")
    return bool(stem and dot) and ending.lower() in _ENDINGS
