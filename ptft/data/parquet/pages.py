"""What the pages of a parquet column say of themselves, read header by header.

The footer says how many values a column has and how large they are unpacked; the pages say it
again, and what a reader makes room for is what the pages say. A header is a Thrift struct in the
compact protocol, of which only these fields are looked at.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass

from ptft.data.parquet.thrift import I32, STRUCT, Compact

__all__ = ["Page", "walk_pages"]

_FIRST = 4096  # bytes of a header that are read at first; they hold statistics, seldom more
_MOST = 1 << 20  # bytes of a header
_DATA, _DICTIONARY, _DATA_V2 = 0, 2, 3  # kinds of pages
_HEADS = {5: _DATA, 7: _DICTIONARY, 8: _DATA_V2}  # field of a page's header -> its kind


@dataclass(frozen=True)
class Page:
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


@dataclass
class _Header:
    size: int = -1
    packed: int = -1
    values: int = 0
    length: int = 0


def _read_header(file: int, place: int, end: int) -> _Header:
    room = _FIRST
    while True:
        data = os.pread(file, min(room, end - place), place)
        try:
            return _parse(data)
        except IndexError:
            if len(data) < room or room >= _MOST:
                raise ValueError("a page without a header") from None
            room *= 16


def _parse(data: bytes) -> _Header:
    """Raises IndexError where the bytes end too soon."""
    reader, header = Compact(data), _Header()
    kind = -1
    for field, type_ in reader.fields():
        if field == 1 and type_ == I32:
            kind = reader.signed()
        elif field == 2 and type_ == I32:
            header.size = reader.signed()
        elif field == 3 and type_ == I32:
            header.packed = reader.signed()
        elif type_ == STRUCT and _HEADS.get(field, -1) == kind and kind != _DICTIONARY:
            for inner, inner_type in reader.fields():
                if inner == 1 and inner_type == I32:
                    header.values = reader.signed()
                else:
                    reader.skip(inner_type)
        else:
            reader.skip(type_)
    header.length = reader.place
    return header
