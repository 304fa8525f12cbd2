"""Large CSV files as columns that are mapped from the cache, built once for a state of the file.

Rows are what ``read_csv`` gives, to the last cell: a file in which Arrow's reader and Python's
might differ (a quote within a cell, a row of another length, no UTF-8) is left to it.
"""

import codecs
import csv
import io
import os
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow
import pyarrow.compute as compute
import pyarrow.csv

from ptft.data.fields.label_values import LabelCodes
from ptft.data.hashing import digest_of
from ptft.data.kept import PackedTexts, remembered
from ptft.data.mapped import map_kept, write_kept
from ptft.data.sources.plain_rows import LARGE, check_size, column_names, read_cell
from ptft.errors import DataError
from ptft.files.own import open_plain
from ptft.speech import counted

__all__ = ["BLOCK", "FILE", "CsvColumns", "odd_paths", "open_columns", "plain_paths"]

FILE = "file_name"
"""The column that names a picture, as Hugging Face's ImageFolder has it."""

BLOCK = 1 << 20
"""Bytes that are parsed at once, of which Arrow holds some tens; rows that are longer are read one
by one."""

_MAX_HEADER = 1 << 20  # bytes of the first line
_MAX_CELL = 131_072  # characters, as Python's reader has it
_PLAIN = r"^[A-Za-z0-9_-][A-Za-z0-9_. -]*(/[A-Za-z0-9_-][A-Za-z0-9_. -]*)*$"
_MAX_PLAIN = 255  # bytes, which no part of such a path has more of
_AT_ONCE = 1 << 20  # names that are looked at at once
_QUOTE, _ENDS = ord('"'), np.frombuffer(b',\r\n"', np.uint8)


class CsvColumns(Sequence[dict[str, Any]]):
    """Rows by number.

    Attributes:
        columns: of texts, by name.
        state: what tells this state of the file from others.
    """

    def __init__(self, columns: dict[str, PackedTexts], state: str) -> None:
        self.columns = columns
        self.state = state
        self._count = len(next(iter(columns.values())))

    @property
    def names(self) -> list[str]:
        """Of all columns."""
        return list(self.columns)

    @property
    def paths(self) -> PackedTexts:
        """Of the column ``file_name``."""
        return self.columns[FILE]

    def column(self, name: str) -> LabelCodes:
        """A column of all rows."""
        if name not in self.columns:
            return LabelCodes([], [], np.full(len(self), -1, np.int32))
        values, codes = self.columns[name].encode()
        return LabelCodes.coded([read_cell(value) for value in values], codes)

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, row: Any) -> Any:
        return {name: read_cell(texts[row]) for name, texts in self.columns.items()}


def open_columns(path: Path) -> CsvColumns | None:
    """The columns of a large file; None where it is small, or to be read row by row.

    Raises:
        DataError: the file cannot be opened, or its first line is no names.
    """
    if check_size(path) < LARGE:
        return None
    with ExitStack() as stack:
        try:
            stream = stack.enter_context(io.BufferedReader(open_plain(path)))
        except OSError as error:
            raise DataError(f"{path}: {error.strerror or error}") from None
        state = os.fstat(stream.fileno())
        key = digest_of("csv", path.resolve(), state.st_size, state.st_mtime_ns, state.st_ino)
        names = _read_names(path, stream)
        if names is None:
            return None
        kept = [f"{digest_of(key, place, part)[:32]}.bin" for place in names for part in "te"]
        found = map_kept(kept)
        if found is None and _is_plain(stream):
            found = write_kept(kept, lambda files: _write(stream, len(names), files))
    if found is None:
        return None
    columns = {
        name: PackedTexts(found[2 * place], found[2 * place + 1].view(np.int64))
        for place, name in enumerate(names)
    }
    return CsvColumns(columns, key) if len(next(iter(columns.values()))) else None


def odd_paths(paths: PackedTexts, state: str) -> np.ndarray:
    """Rows, int64, whose path of a picture is not one of ``plain_paths``.

    Args:
        state: what tells the table that they are of from others.
    """
    odd = remembered(lambda: {"odd": np.flatnonzero(~plain_paths(paths))}, "odd", state)
    return odd["odd"]


def plain_paths(names: PackedTexts) -> np.ndarray:
    """Which texts are paths in ASCII that lie inside a folder, as a listing has them: bool (N,)."""
    found = []
    for first in range(0, len(names), _AT_ONCE):
        some = names.between(first, first + _AT_ONCE).arrow()
        short = compute.less_equal(compute.binary_length(some), _MAX_PLAIN)
        found.append(compute.and_(compute.match_substring_regex(some, _PLAIN), short))
    return np.concatenate([mask.to_numpy(zero_copy_only=False) for mask in found])


def _read_names(path: Path, stream: BinaryIO) -> list[str] | None:
    """The names in the first line, with the stream behind it; None where it is no line alone."""
    line = stream.readline(_MAX_HEADER)
    try:
        text = line.decode("utf-8-sig")
        (names,) = csv.reader([text], strict=True)
    except (UnicodeDecodeError, ValueError, csv.Error):
        return None
    if not text.endswith("\n") or "\r" in text.removesuffix("\r\n") or not names:
        return None
    return column_names(path, names)


def _is_plain(stream: "io.BufferedReader[Any]") -> bool:
    """Whether every quote opens a cell, closes one or stands for itself within one, and there is no
    NUL and no carriage return in a cell; from the stream's place on, where it is again afterwards.
    """
    place, inside, before = stream.tell(), False, ord("\n")
    if stream.peek(3).startswith(codecs.BOM_UTF8):  # of the first cell, which Arrow drops
        return False
    try:
        while data := stream.read(BLOCK):
            following = stream.peek(1)[:1] or b"\n"
            row = np.frombuffer(data + following, np.uint8)
            if b"\0" in data:
                return False
            quotes = np.flatnonzero(row[:-1] == _QUOTE)
            opening, closing = quotes[inside::2], quotes[not inside :: 2]
            previous = np.where(opening > 0, row[opening - 1], before)
            if not np.isin(previous, _ENDS).all() or not np.isin(row[closing + 1], _ENDS).all():
                return False
            returns = np.flatnonzero(row[:-1] == ord("\r"))
            if (np.searchsorted(quotes, returns) % 2 != inside).any():
                return False  # within a cell: Arrow takes one between two blocks for a row's end
            inside ^= bool(len(quotes) % 2)
            before = data[-1]
        return not inside
    finally:
        stream.seek(place)


def _write(stream: BinaryIO, columns: int, files: Sequence[BinaryIO]) -> bool:
    """Parse the rest of a stream into files: of each column its texts, and where each ends."""
    names = [str(place) for place in range(columns)]
    reader = None
    ends = [0] * columns
    try:
        reader = pyarrow.csv.open_csv(
            stream,
            read_options=pyarrow.csv.ReadOptions(
                use_threads=False, block_size=BLOCK, column_names=names
            ),
            parse_options=pyarrow.csv.ParseOptions(newlines_in_values=True),
            convert_options=pyarrow.csv.ConvertOptions(
                column_types=dict.fromkeys(names, pyarrow.large_binary()),
                strings_can_be_null=False,
            ),
        )
        blocks = -(-os.fstat(stream.fileno()).st_size // BLOCK)
        for batch in counted(reader, "reading a table by MiB", blocks):
            for place, column in enumerate(batch.columns):
                texts, lengths = _parts(column)
                str(texts, "utf-8")
                if len(lengths) and int(lengths.max()) > _MAX_CELL:
                    return False
                files[2 * place].write(texts)
                own = ends[place] + np.cumsum(lengths, dtype=np.int64)
                files[2 * place + 1].write(own.data)
                ends[place] = int(own[-1]) if len(own) else ends[place]
    except (pyarrow.ArrowException, UnicodeDecodeError):
        return False  # whoever reads row by row says what is wrong
    finally:
        pyarrow.default_memory_pool().release_unused()
    return True


def _parts(column: pyarrow.Array) -> tuple[memoryview, np.ndarray]:
    """The bytes of an array's texts, one after the other, and their lengths."""
    _, offsets, data = column.buffers()
    bounds = np.frombuffer(offsets, np.int64)[column.offset : column.offset + len(column) + 1]
    return memoryview(data or b"")[bounds[0] : bounds[-1]], np.diff(bounds)
