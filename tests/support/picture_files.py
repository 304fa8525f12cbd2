"""Files of pictures byte by byte, for what Pillow does not write; and pictures to put into them."""

import io
import struct
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from ptft.artifact import read_json, write_json

__all__ = ["STORED", "age", "encode", "exif_of", "pgm", "pillow", "png", "tiff", "upright"]

_T = Image.Transpose
STORED = {1: None, 2: _T.FLIP_LEFT_RIGHT, 3: _T.ROTATE_180, 4: _T.FLIP_TOP_BOTTOM}
STORED |= {5: _T.TRANSPOSE, 6: _T.ROTATE_90, 7: _T.TRANSVERSE, 8: _T.ROTATE_270}
"""Orientation -> how an upright picture lies in such a file."""

_FORMATS = {1: "B", 3: "H", 4: "I", 6: "b", 8: "h", 9: "i", 11: "f", 12: "d"}  # TIFF's types
Tag = tuple[int, Sequence[float]]


def upright() -> Image.Image:
    """48 x 32, a colour for each quarter: no turn or mirror of it is itself."""
    picture = Image.new("RGB", (48, 32), (220, 30, 30))
    for colour, x, y in (((30, 200, 40), 24, 0), ((40, 60, 220), 0, 16), ((9, 9, 9), 24, 16)):
        picture.paste(colour, (x, y, x + 24, y + 16))
    return picture


def exif_of(orientation: Any) -> Image.Exif:
    exif = Image.Exif()
    exif[0x010F] = "a camera"
    exif[0x0112] = orientation
    return exif


def encode(image: Image.Image, form: str = "JPEG", **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, form, **options)
    return stream.getvalue()


def png(
    samples: np.ndarray,
    depth: int,
    *,
    before: Mapping[bytes, bytes] | None = None,
    after: Mapping[bytes, bytes] | None = None,
) -> bytes:
    """Greyscale (h, w), with opacity (h, w, 2), colour (h, w, 3) or with opacity (h, w, 4).

    Args:
        depth: bits of a sample: 1, 2, 4 (greyscale), 8 or 16.
        before, after: chunks around the pixels.
    """
    height, width = samples.shape[:2]
    colour = {2: 0, 3: {2: 4, 3: 2, 4: 6}.get(samples.shape[-1])}[samples.ndim]
    rows = samples.reshape(height, -1)
    if depth < 8:
        bits = (rows[..., None] >> np.arange(depth - 1, -1, -1)) & 1
        packed = np.packbits(bits.reshape(height, -1).astype(np.uint8), axis=1)
    else:
        packed = rows.astype(">u2" if depth == 16 else np.uint8)
    pixels = b"".join(b"\0" + row.tobytes() for row in packed)

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + _crc(kind + data)

    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    chunks = [(b"IHDR", header), *(before or {}).items(), (b"IDAT", zlib.compress(pixels))]
    chunks += [*(after or {}).items(), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*one) for one in chunks)


def _crc(data: bytes) -> bytes:
    return struct.pack(">I", zlib.crc32(data))


def tiff(
    samples: np.ndarray,
    *,
    photometric: int | None = None,
    order: str = "<",
    bits: int | None = None,
    data: bytes | None = None,
    **more: Tag,
) -> bytes:
    """Uncompressed, of the array's own kind of sample: (h, w) or (h, w, channels).

    Args:
        photometric: 1, black is zero, for greyscale, and 2, RGB, for colours unless given.
        bits, data: of samples that numpy has no type for.
        more: further tags, ``t281=(type, values)``.
    """
    height, width = samples.shape[:2]
    channels = 1 if samples.ndim == 2 else samples.shape[2]
    data = samples.astype(samples.dtype.newbyteorder(order)).tobytes() if data is None else data
    kind = {"u": 1, "i": 2, "f": 3}[samples.dtype.kind]
    photometric = photometric if photometric is not None else (1 if channels == 1 else 2)
    tags: dict[int, Tag] = {
        256: (3, [width]),
        257: (3, [height]),
        258: (3, [bits or samples.dtype.itemsize * 8] * channels),
        259: (3, [1]),
        262: (3, [photometric]),
        273: (4, [0]),
        277: (3, [channels]),
        278: (3, [height]),
        279: (4, [len(data)]),
        339: (3, [kind] * channels),
        **{int(name[1:]): tag for name, tag in more.items()},
    }
    at = 8 + 2 + 12 * len(tags) + 4
    bodies, places = {}, {}
    for tag, (form, values) in sorted(tags.items()):
        bodies[tag] = struct.pack(f"{order}{len(values)}{_FORMATS[form]}", *values)
        if len(bodies[tag]) > 4:
            places[tag] = at
            at += len(bodies[tag])
    bodies[273] = struct.pack(order + "I", at)
    out = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "IH", 8, len(tags))
    for tag, (form, values) in sorted(tags.items()):
        out += struct.pack(order + "HHI", tag, form, len(values))
        where = struct.pack(order + "I", places[tag]) if tag in places else bodies[tag]
        out += where.ljust(4, b"\0")
    out += struct.pack(order + "I", 0)
    return out + b"".join(bodies[tag] for tag in sorted(places)) + data


def pgm(samples: np.ndarray, most: int, *, plain: bool = False) -> bytes:
    """Greyscale (h, w) as PGM of a maximum, in figures where ``plain``."""
    head = f"P{2 if plain else 5}\n{samples.shape[1]} {samples.shape[0]}\n{most}\n".encode()
    if plain:
        return head + " ".join(str(one) for one in samples.ravel()).encode()
    return head + samples.astype(">u2" if most > 255 else np.uint8).tobytes()


def pillow(data: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(data)) as image:
        return np.array(ImageOps.exif_transpose(image).convert("RGB"))


def age(folder: Path) -> None:
    """A model's folder as ptft wrote it before models said how they read."""
    path = folder / "model.json"
    values = read_json(path)
    del values["preprocess"]["reading"]
    write_json(path, values)
