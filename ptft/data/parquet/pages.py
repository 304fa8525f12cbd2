"""What the pages of a parquet column say of themselves, read header by header.

The footer says how many values a column has and how large they are unpacked; the pages say it
again, and what a reader makes room for is what the pages say. A header is a Thrift struct in the
compact protocol, of which only these fields are looked at.
"""

import os
import re
from collections.abc import Iterator
from functools import cache
from typing import NamedTuple

from ptft.data.parquet.thrift import I32, STRUCT, VARINT, Compact, fields_pattern, signed

__all__ = ["Page", "header_pattern", "parse_header", "walk_pages"]

_FIRST = 4096  # bytes of a header that are read at first; they hold statistics, seldom more
_MOST = 1 << 20  # bytes of a header
_DATA, _DICTIONARY, _DATA_V2 = 0, 2, 3  # kinds of pages
_HEADS = {5: _DATA, 7: _DICTIONARY, 8: _DATA_V2}  # field of a page's header -> its kind
_STRUCTS = {b"\x00": b"\x2c", b"\x04": b"\x4c", b"\x06": b"\x5c"}  # the same, as bytes of a file


class Page(NamedTuple):
    """A page.

    Attributes:
        size: in bytes, once unpacked.
        values: in it; 0 of a dictionary's, whose values are not the column's.
    """

    size: int
    values: int


def walk_pages(file: int, start: int, size: int) -> Iterator[Page]:
    """The pages of a column chunk.

    Args:
        file: descriptor of an open file.
        start, size: of the chunk, in bytes.

    Raises:
        ValueError: a header cannot be read, or the pages do not fill the chunk.
    """
    place, end = start, start + size
    while place < end:
        header = _read_header(file, place, end)
        if header.packed < 0 or header.size < 0 or header.values < 0:
            raise ValueError("a page of a negative size")
        place += header.length + header.packed
        if place > end:
            raise ValueError("a page that is larger than its column")
        yield Page(header.size, header.values)


class _Header(NamedTuple):
    size: int
    packed: int
    values: int
    length: int


def _read_header(file: int, place: int, end: int) -> _Header:
    room = _FIRST
    while True:
        data = os.pread(file, min(room, end - place), place)
        try:
            return parse_header(data)
        except IndexError:
            if len(data) < room or room >= _MOST:
                raise ValueError("a page without a header") from None
            room *= 16


@cache
def header_pattern() -> re.Pattern[bytes]:
    """A header as most writers make it: kind, size, packed, and the kind's own struct, whose first
    field counts the values."""
    number = rb"\x15(" + VARINT + rb")"
    kind = rb"\x15([\x00\x04\x06])"
    return re.compile(
        kind + 2 * number + rb"([\x2c\x4c\x5c])" + number + 2 * fields_pattern(), re.DOTALL
    )


def parse_header(data: bytes) -> _Header:
    """The page header that ``data`` begins with. Raises IndexError where they end too soon."""
    usual = header_pattern().match(data)
    if usual is not None and _STRUCTS[usual[1]] == usual[4]:
        values = 0 if usual[4] == b"\x4c" else signed(usual[5])
        return _Header(signed(usual[2]), signed(usual[3]), values, usual.end())
    reader = Compact(data)
    kind = size = packed = -1
    values = 0
    for field, type_ in reader.fields():
        if field == 1 and type_ == I32:
            kind = reader.signed()
        elif field == 2 and type_ == I32:
            size = reader.signed()
        elif field == 3 and type_ == I32:
            packed = reader.signed()
        elif type_ == STRUCT and _HEADS.get(field, -1) == kind and kind != _DICTIONARY:
            for inner, inner_type in reader.fields():
                if inner == 1 and inner_type == I32:
                    values = reader.signed()
                else:
                    reader.skip(inner_type)
        else:
            reader.skip(type_)
    return _Header(size, packed, values, reader.place)
