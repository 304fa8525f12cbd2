"""The footer of a parquet file, as far as it says what lies where and how large it is.

pyarrow knows it too, but of a column's entry that contradicts itself its accessors end the process:
they let an exception of C++ through. Reading the columns reports the same one as an error.
"""

import os
import re
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import NamedTuple

from ptft.data.parquet.thrift import (
    BINARY,
    I32,
    I64,
    LIST,
    NOT_NEGATIVE,
    SHORT,
    STRUCT,
    VARINT,
    Compact,
    fields_pattern,
    signed,
)
from ptft.files.own import open_plain

__all__ = ["Chunk", "Group", "footer_bytes", "footer_pattern", "read_footer"]

_MAGIC = b"PAR1"
_MOST = 256 << 20  # bytes of a footer


class Chunk(NamedTuple):
    """A column of a row group.

    Attributes:
        path: names from the top of the schema down.
        encodings: their numbers.
        values: how many, nulls included.
        size, packed: in bytes, unpacked and as they lie in the file.
        start: of its first page.
    """

    path: tuple[str, ...]
    encodings: tuple[int, ...]
    values: int
    size: int
    packed: int
    start: int


@dataclass(frozen=True)
class Group:
    """A row group. What is said of a column is read when it is asked for: of a file of many columns
    and groups most are never.

    Attributes:
        rows: how many.
        paths: of its columns, see :class:`Chunk`.
        footer: the file's, which all its groups share.
        places: where in it the columns' entries begin.
    """

    rows: int
    paths: tuple[tuple[str, ...], ...]
    footer: bytes = b""
    places: tuple[int, ...] = ()

    def chunk(self, number: int) -> Chunk:
        """What is said of a column. Raises ValueError: it contradicts itself."""
        reader = Compact(self.footer)
        reader.place = self.places[number]
        return _chunk(reader)


def footer_bytes(path: Path) -> bytes:
    """The footer of a file, without its length. Raises as :func:`read_footer` does."""
    with open_plain(path) as stream:
        end = os.fstat(stream.fileno()).st_size
        tail = os.pread(stream.fileno(), 8, max(0, end - 8))
        length = int.from_bytes(tail[:4], "little")
        if end < 12 or tail[4:] != _MAGIC or length > min(end - 12, _MOST):
            raise ValueError("no parquet: its footer is missing, encrypted or cut")
        return os.pread(stream.fileno(), length, end - 8 - length)


def read_footer(path: Path) -> list[Group]:
    """The row groups of a file.

    Raises:
        ValueError: there is no footer, or not one that can be read.
        OSError: the file cannot be read.
    """
    reader, groups = Compact(footer_bytes(path)), []
    try:
        for field, type_ in reader.fields():
            if field == 4 and type_ == LIST:
                groups = _groups(reader)
            else:
                reader.skip(type_)
    except IndexError:
        raise ValueError("no parquet: its footer ends too soon") from None
    return groups


def _groups(reader: Compact) -> list[Group]:
    count, type_ = reader.elements()
    if count and type_ != STRUCT:
        raise ValueError("row groups that are none")
    return [_group(reader) for _ in range(count)]


def _group(reader: Compact) -> Group:
    rows = -1
    paths: list[tuple[str, ...]] = []
    places: list[int] = []
    for field, type_ in reader.fields():
        if field == 1 and type_ == LIST:
            count, inner = reader.elements()
            if count and inner != STRUCT:
                raise ValueError("columns that are none")
            paths, places = [], []
            for _ in range(count):
                places.append(reader.place)
                paths.append(_named(reader))
        elif field == 3 and type_ == I64:
            rows = reader.signed()
        else:
            reader.skip(type_)
    if rows < 0:
        raise ValueError("a row group of no number of rows")
    return Group(rows, tuple(paths), reader.data, tuple(places))


@cache
def footer_pattern() -> re.Pattern[bytes]:
    """A column's entry as most writers make it: encodings, name, values, size, packed, and where
    its pages and its dictionary begin."""
    number = b"(" + NOT_NEGATIVE + b")"
    encodings = b"|".join(rb"\x%02x[\x00-\x7f]{%d}" % (n << 4 | I32, n) for n in range(1, 8))
    names = b"|".join(rb"\x%02x(?:%s){%d}" % (n << 4 | BINARY, SHORT, n) for n in range(1, 5))
    return re.compile(
        rb"(?:\x26" + VARINT + rb")?+\x1c"  # where it lies in the file, and what it is:
        rb"\x15" + VARINT + rb"\x19(" + encodings + rb")\x19(" + names + rb")\x15" + VARINT
        + 3 * (rb"\x16" + number) + rb"\x26" + number + rb"(?:\x26(" + VARINT + rb"))?+"
        + 2 * fields_pattern(),
        re.DOTALL,
    )  # fmt: skip


def _named(reader: Compact) -> tuple[str, ...]:
    """The path of a column, of whose entry the rest is passed over where it is as usual: no object
    is made of each, which Python would look through again and again for garbage."""
    usual = footer_pattern().match(reader.data, reader.place)
    if usual is None:
        return _chunk(reader).path
    second = usual[7] or b"\0"
    if second[0] & 1 or not (usual[6] + second).strip(b"\x80\0"):  # negative; it lies nowhere
        return _chunk(reader).path
    reader.place = usual.end()
    return _path(usual[2])


def _chunk(reader: Compact) -> Chunk:
    usual = footer_pattern().match(reader.data, reader.place)
    if usual is not None:
        reader.place = usual.end()
        encodings, names, *numbers = usual.groups()
        values, size, packed, first, second = (signed(n) if n else 0 for n in numbers)
        return _checked(_path(names), _encodings(encodings), values, size, packed, (first, second))
    found: Chunk | None = None
    for field, type_ in reader.fields():
        if field == 3 and type_ == STRUCT:
            found = _metadata(reader)
        elif field == 1:
            raise ValueError("a column that lies in another file")
        else:
            reader.skip(type_)
    if found is None:
        raise ValueError("a column that nothing is said of")
    return found


def _metadata(reader: Compact) -> Chunk:
    numbers: dict[int, int] = {}
    encodings: tuple[int, ...] = ()
    path: tuple[str, ...] = ()
    for field, type_ in reader.fields():
        if type_ == I64 and field in (5, 6, 7, 9, 11):
            numbers[field] = reader.signed()
        elif field == 2 and type_ == LIST:
            count, inner = reader.elements()
            if count and inner != I32:
                raise ValueError("encodings that are none")
            encodings = tuple(reader.signed() for _ in range(count))
        elif field == 3 and type_ == LIST:
            count, inner = reader.elements()
            if count and inner != BINARY:
                raise ValueError("a column's name that is none")
            path = tuple(reader.bytes().decode("utf-8") for _ in range(count))
        else:
            reader.skip(type_)
    values, size, packed = (numbers.get(field, -1) for field in (5, 6, 7))
    starts = (numbers.get(9, 0), numbers.get(11, 0))
    return _checked(path, encodings, values, size, packed, starts)


def _checked(
    path: tuple[str, ...],
    encodings: tuple[int, ...],
    values: int,
    size: int,
    packed: int,
    starts: tuple[int, int],
) -> Chunk:
    one, two = starts  # of its pages and of its dictionary; 0: there is none
    if values < 0 or size < 0 or packed < 0 or one < 0 or two < 0 or not (one or two) or not path:
        raise ValueError("a column of no size, number or place")
    return Chunk(path, encodings, values, size, packed, min(one or two, two or one))


@lru_cache(maxsize=4096)
def _path(names: bytes) -> tuple[str, ...]:
    """The texts of a list."""
    reader = Compact(names)
    return tuple(reader.bytes().decode("utf-8") for _ in range(reader.elements()[0]))


@lru_cache(maxsize=256)
def _encodings(numbers: bytes) -> tuple[int, ...]:
    """The numbers of a list."""
    reader = Compact(numbers)
    return tuple(reader.signed() for _ in range(reader.elements()[0]))
