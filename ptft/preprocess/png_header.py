"""What a PNG says before its pixels that Pillow does not tell: bits a sample, stored and
significant."""

import struct
from dataclasses import dataclass

__all__ = ["PngHeader", "read_png_header"]

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
