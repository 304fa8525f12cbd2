"""Requests that ask for much with little: the attacks, as bodies and as things done to a socket.

What each stands for is in the name of its kind; ``tests.serving.test_attacks`` holds what the
service does with one, ``tests.bench.attacks`` what it costs those who ask beside it.
"""

import base64
import io
import json
import struct
import zlib

import numpy as np
from PIL import Image

__all__ = [
    "BOUNDARY",
    "classification",
    "cut_form",
    "expanding_labels",
    "flat_jpeg",
    "flat_jpeg2000",
    "flat_webp",
    "form",
    "many_labels",
    "pictures",
    "small_photo",
    "texts_of_emoji",
    "thin_png",
    "uniform_png",
]

BOUNDARY = "aBoundary"


def _saved(image: Image.Image, form: str, **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, form, **options)
    return stream.getvalue()


def small_photo(side: int = 64, seed: int = 0) -> bytes:
    """A JPEG of noise."""
    pixels = np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)
    return _saved(Image.fromarray(pixels), "JPEG", quality=85)


def flat_jpeg(width: int, height: int, *, progressive: bool = False) -> bytes:
    """One colour, some 60 times smaller than its pixels."""
    image = Image.new("RGB", (width, height), "olive")
    return _saved(image, "JPEG", quality=40, progressive=progressive)


def flat_webp(megapixels: int) -> bytes:
    """The header of a lossless WebP of so many megapixels, each 1,000 rows; 1,000 bytes a pixel."""
    bits = (1000 - 1) << 14 | (1000 * megapixels - 1)
    chunk = b"VP8L" + struct.pack("<I", 18) + b"\x2f" + struct.pack("<I", bits) + bytes(13)
    return b"RIFF" + struct.pack("<I", len(chunk) + 4) + b"WEBP" + chunk


def flat_jpeg2000() -> bytes:
    """The signature of a JPEG 2000, which is as far as anybody should read."""
    return b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(60)


def uniform_png(width: int, height: int) -> bytes:
    """Zeros, row by row; a thousand times smaller than its pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    packer, row = zlib.compressobj(9), bytes(3 * width + 1)
    data = b"".join(packer.compress(row) for _ in range(height)) + packer.flush()
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = chunk(b"IHDR", head), chunk(b"IDAT", data), chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def thin_png(size: int) -> bytes:
    """A pixel wide, and so high that a model of this size would resize it to 60 megapixels."""
    return uniform_png(1, 60_000_000 // size**2)


def pictures(*files: bytes) -> bytes:
    """The body of ``/v1/embed/image``."""
    return json.dumps({"images": [base64.b64encode(one).decode() for one in files]}).encode()


def classification(picture: bytes, labels: list[str], templates: list[str]) -> bytes:
    """The body of ``/v1/classify``."""
    coded = base64.b64encode(picture).decode()
    return json.dumps({"images": [coded], "labels": labels, "templates": templates}).encode()


def expanding_labels(characters: int, places: int) -> bytes:
    """A label in a template that repeats it."""
    return classification(small_photo(), ["y" * characters], ["{}" * places])


def many_labels(count: int, words: int, number: int) -> list[str]:
    """Labels that no request had before."""
    return [f"label {number} {each} " + "thing " * words for each in range(count)]


def texts_of_emoji(count: int, characters: int) -> bytes:
    """The body of ``/v1/embed/text``."""
    text = "\N{PILE OF POO}" * characters
    return json.dumps({"texts": [text] * count}, ensure_ascii=False).encode()


def form(files: list[bytes]) -> bytes:
    """A multipart body."""
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="images"; filename="f"\r\n\r\n'
    parts = [head.encode() + one + b"\r\n" for one in files]
    return b"".join(parts) + f"--{BOUNDARY}--\r\n".encode()


def cut_form(size: int) -> bytes:
    """A multipart body of one file that ends before it does."""
    return form([bytes(size)])[: -len(BOUNDARY) - 8]
