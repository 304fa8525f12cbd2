"""Parquet files that may be anybody's: what they say they unpack to is held against their size
before room is made for it.

A few bytes of parquet can stand for any number of values: runs of one value, a dictionary whose one
long text every row names, pages of zeros that zstd packs ten thousand to one. So texts and bytes
are read as dictionaries, a copy of each value and a number a row, and the rest has bounds.
"""

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.compute
import pyarrow.parquet

from ptft.data.fields.label_values import LabelCodes
from ptft.data.parquet.footer import Group, read_footer
from ptft.data.parquet.pages import Page, walk_pages
from ptft.errors import DataError
from ptft.files.own import open_plain

__all__ = [
    "PART_BYTES",
    "check_indices",
    "column_codes",
    "column_values",
    "group_parts",
    "open_parquet",
    "parquet_errors",
    "read_group",
    "row_groups",
]

_VALUES_A_BYTE = 64  # of a file; a column of nothing but nulls may have far more, and is of no use
_FREE_VALUES = 4 << 20  # that a file of any size may have
_RATIO = 256  # bytes unpacked for one packed; texts and tables of numbers reach 10 to 50
_FREE_BYTES = 64 << 20  # that a column of any size may unpack to
PART_BYTES = 256 << 20
"""Unpacked, of a part of a row group at most; who asks for parts asks for far fewer."""

_BUFFER = 1 << 20  # bytes of a column that are read from the disk at once, of a group in parts
_PREFIXED = 7  # DELTA_BYTE_ARRAY: each value goes on from the one before: any size from few bytes


def open_parquet(path: Path, groups: Iterable[Group]) -> pyarrow.parquet.ParquetFile:
    """A file whose texts and bytes are read as dictionaries.

    Args:
        groups: as ``row_groups`` gives them, of which the names of columns are held.

    Raises:
        DataError: it is no parquet, or has a column's name twice.
    """
    with parquet_errors(path):
        with pyarrow.parquet.ParquetFile(path) as plain:
            metadata = plain.metadata
        columns = [metadata.schema.column(place) for place in range(metadata.num_columns)]
        names = [column.path for column in columns]
        if (twice := next((n for n, c in Counter(names).items() if c > 1), None)) is not None:
            raise DataError(f"{path}: two columns are named {twice!r}; allowed: different names")
        if any(list(map(".".join, group.paths)) != names for group in groups):
            raise DataError(f"{path}: a row group of other columns than the schema's")
        return pyarrow.parquet.ParquetFile(
            path, metadata=metadata, read_dictionary=_byte_columns(metadata)
        )


def row_groups(path: Path) -> list[Group]:
    """The row groups of a file. Raises DataError: it has none that can be read, or says that it has
    more rows than its size could hold."""
    with parquet_errors(path):
        groups, size = read_footer(path), path.stat().st_size
    rows = sum(group.rows for group in groups)
    if rows > _most_values(size):
        raise DataError(f"{path}: {rows:,} rows in {size:,} bytes; allowed: {_most_values(size):,}")
    return groups


def read_group(
    file: pyarrow.parquet.ParquetFile,
    path: Path,
    group: Group,
    number: int,
    columns: Sequence[str] | None,
) -> pyarrow.Table:
    """A row group.

    Args:
        file: as ``open_parquet`` gives it.
        group: one that ``row_groups`` gives.
        number: its place among them.
        columns: by name; None: all.

    Raises:
        DataError: the columns would unpack to more than their size could hold, or are damaged.
    """
    with parquet_errors(path):
        names = list(columns) if columns is not None else None
        widest, _ = _check_group(file, path, group, f"row group {number}", names)
        if widest is None:
            table = file.read_row_group(number, columns=names, use_threads=False)
        else:
            table = _read_in_parts(file, path, number, names, widest)
        if table.num_rows != group.rows:
            raise ValueError(f"{table.num_rows:,} rows where it says {group.rows:,}")
        _check_table(table, path)
        return table


def _check_table(table: pyarrow.Table, path: Path) -> None:
    for name, kind in zip(table.column_names, table.schema.types, strict=True):
        nested = pyarrow.types.is_nested(kind)
        if nested or pyarrow.types.is_dictionary(kind):
            for chunk in table[name].chunks:
                check_indices(chunk)
        if nested:
            _check_unpacked(table[name], path, name)


def group_parts(
    file: pyarrow.parquet.ParquetFile,
    path: Path,
    group: Group,
    number: int,
    columns: Sequence[str],
    rows: int,
) -> Iterator[pyarrow.Table]:
    """A row group in tables of ``rows`` rows, the last of fewer; no more of it is in memory.

    Args:
        file, path, group, number, columns: as of ``read_group``.

    Raises:
        DataError: (on iteration) as ``read_group`` does.
    """
    names, seen = list(columns), 0
    where = f"{path}: row group {number}"
    with parquet_errors(path), ExitStack() as held:
        widest, dictionary = _check_group(file, path, group, f"row group {number}", names)
        # a dictionary grows with what was read: of texts and bytes each row has its own copy, and
        # so few rows are read at once that copies of a dictionary's longest value do no harm
        opened = held.enter_context(
            pyarrow.parquet.ParquetFile(
                path, metadata=file.metadata, buffer_size=_BUFFER, pre_buffer=False
            )
        )
        at_once = min(rows, max(1, _FREE_BYTES // max(widest or 0, dictionary, 1)))
        most, size = _most_bytes(path.stat().st_size), 0
        waiting, there, held_bytes = list[pyarrow.RecordBatch](), 0, 0
        for batch in opened.iter_batches(
            at_once, row_groups=[number], columns=names, use_threads=False
        ):
            waiting.append(batch)
            seen, there = seen + len(batch), there + len(batch)
            size, held_bytes = size + batch.nbytes, held_bytes + batch.nbytes
            if size > most or held_bytes > PART_BYTES:
                raise DataError(f"{where}: more than {min(most, PART_BYTES):,} bytes unpacked")
            if there < rows and seen < group.rows:
                continue
            table = pyarrow.Table.from_batches(waiting)
            _check_table(table, path)
            yield table.slice(0, rows)
            waiting = table.slice(rows).to_batches()
            there, held_bytes = sum(map(len, waiting)), sum(each.nbytes for each in waiting)
        if waiting or seen != group.rows:
            raise ValueError(f"{seen:,} rows where it says {group.rows:,}")


def column_values(column: pyarrow.ChunkedArray, path: Path, name: str) -> list[Any]:
    """All values of a column that ``read_group`` gave. Raises DataError where they are too large
    together."""
    with parquet_errors(path):
        _check_unpacked(column, path, name)
        return column.to_pylist()


def column_codes(column: pyarrow.ChunkedArray, path: Path, name: str) -> LabelCodes:
    """All values of a column that ``read_group`` gave, each once. Raises DataError as
    ``column_values`` does."""
    with parquet_errors(path):
        _check_unpacked(column, path, name)
        return LabelCodes.joined(map(_codes, column.chunks))


def _codes(chunk: pyarrow.Array) -> LabelCodes:
    if not pyarrow.types.is_dictionary(chunk.type):
        return LabelCodes.of(chunk.to_pylist())
    codes = chunk.indices.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int32)
    return LabelCodes.numbered(chunk.dictionary.to_pylist(), codes)


@contextmanager
def parquet_errors(path: Path) -> Iterator[None]:
    """What pyarrow raises inside, as a DataError in one line."""
    try:
        yield
    except (pyarrow.ArrowException, OSError, ValueError, MemoryError) as error:
        raise DataError(f"{path}: {' '.join(str(error).split()) or type(error).__name__}") from None


def _most_values(size: int) -> int:
    return _FREE_VALUES + _VALUES_A_BYTE * size


def _most_bytes(size: int) -> int:
    return _FREE_BYTES + _RATIO * size


def _byte_columns(metadata: Any) -> list[str]:
    found = []
    for number in range(metadata.num_columns):
        column = metadata.schema.column(number)
        if column.physical_type == "BYTE_ARRAY" and column.logical_type.type != "DECIMAL":
            found.append(column.path)
    return found


def _check_group(
    file: pyarrow.parquet.ParquetFile,
    path: Path,
    group: Group,
    where: str,
    names: Sequence[str] | None,
) -> tuple[int | None, int]:
    """Hold the column chunks that are to be read against their size.

    Returns:
        Bytes of the largest page of one that packs values by prefixes, None where none does; and of
        the largest dictionary.
    """
    widest, schema, dictionary = None, file.metadata.schema, 0
    with open_plain(path) as stream:
        end = os.fstat(stream.fileno()).st_size
        for place, column in enumerate(group.paths):
            if names is not None and column[0] not in names:
                continue
            chunk = group.chunk(place)
            about = schema.column(place)
            what = f"{path}: {where}: column {'.'.join(chunk.path)}"
            if chunk.start < 4 or chunk.start + chunk.packed > end:
                raise DataError(f"{what}: it lies outside the file")
            pages = _walk(stream.fileno(), chunk.start, chunk.packed, what)
            size, values = (sum(each) for each in zip(*pages, strict=True)) if pages else (0, 0)
            flat = about.max_repetition_level == 0
            if values != chunk.values or (flat and values != group.rows):
                raise DataError(f"{what}: its pages have {values:,} values, which is not its count")
            if values > _most_values(end):
                raise DataError(
                    f"{what}: {values:,} values; allowed in a file of {end:,} bytes: "
                    f"{_most_values(end):,}"
                )
            size = max(size, values * max(about.length, 0))  # of values of a fixed width
            if size > _most_bytes(chunk.packed):
                raise DataError(
                    f"{what}: {size:,} bytes unpacked of {chunk.packed:,}; allowed: {_RATIO} to 1, "
                    f"and {_FREE_BYTES:,}"
                )
            if _PREFIXED in chunk.encodings:
                widest = max(widest or 1, *(page.size for page in pages), 1)
            dictionary = max(dictionary, *(page.size for page in pages if not page.values), 0)
    return widest, dictionary


def _walk(file: int, start: int, size: int, what: str) -> list[Page]:
    try:
        return list(walk_pages(file, start, size))
    except ValueError as error:
        raise DataError(f"{what}: {error}") from None


def _read_in_parts(
    file: pyarrow.parquet.ParquetFile,
    path: Path,
    number: int,
    names: list[str] | None,
    widest: int,
) -> pyarrow.Table:
    """A row group a few rows at a time, so that what it unpacks to is seen as it comes."""
    rows = max(1, _FREE_BYTES // 4 // widest)
    most, size, batches = _most_bytes(path.stat().st_size), 0, []
    plain = pyarrow.parquet.ParquetFile(path, metadata=file.metadata)  # no dictionaries of these
    with plain:
        parts = plain.iter_batches(rows, row_groups=[number], columns=names, use_threads=False)
        for batch in parts:
            size += batch.nbytes
            if size > most:
                raise DataError(f"{path}: row group {number}: more than {most:,} bytes unpacked")
            batches.append(batch)
        schema = batches[0].schema if batches else plain.schema_arrow
    return pyarrow.Table.from_batches(batches, schema=schema)


def _check_unpacked(column: pyarrow.ChunkedArray, path: Path, name: str) -> None:
    """Hold what the values of a column are together, each counted, against the file's size."""
    most = _most_bytes(path.stat().st_size)
    size = sum(_unpacked(chunk) for chunk in column.chunks)
    if size > most:
        raise DataError(f"{path}: column {name}: {size:,} bytes of values; allowed: {most:,}")


def check_indices(array: pyarrow.Array) -> None:
    """Hold the numbers of dictionaries' values to be within them, which pyarrow leaves to whoever
    uses them. Raises ValueError."""
    kind = array.type
    if pyarrow.types.is_dictionary(kind):
        found = pyarrow.compute.min_max(array.indices).as_py()
        least, most = found["min"], found["max"]
        if most is not None and not 0 <= least <= most < len(array.dictionary):
            raise ValueError("a value's number is beyond its dictionary")
    elif pyarrow.types.is_struct(kind):
        for place in range(kind.num_fields):
            check_indices(array.field(place))
    elif _is_list(kind):
        check_indices(array.flatten())


def _is_list(kind: pyarrow.DataType) -> bool:
    lists = (pyarrow.types.is_list, pyarrow.types.is_large_list, pyarrow.types.is_fixed_size_list)
    return any(is_kind(kind) for is_kind in lists)


def _unpacked(array: pyarrow.Array) -> int:
    """Bytes of an array with a copy of a dictionary's value for each that names it."""
    kind = array.type
    if pyarrow.types.is_dictionary(kind):
        values = array.dictionary
        if not hasattr(values, "to_pylist") or not _has_length(values.type):
            return int(array.nbytes)
        lengths = pyarrow.compute.binary_length(values).cast(pyarrow.int64())
        return int(pyarrow.compute.sum(lengths.take(array.indices)).as_py() or 0)
    if pyarrow.types.is_struct(kind):
        return sum(_unpacked(array.field(place)) for place in range(kind.num_fields))
    if _is_list(kind):
        return int(array.nbytes) + _unpacked(array.flatten())
    return int(array.nbytes)


def _has_length(kind: pyarrow.DataType) -> bool:
    texts = (
        *(pyarrow.types.is_binary, pyarrow.types.is_large_binary),
        *(pyarrow.types.is_string, pyarrow.types.is_large_string),
    )
    return any(is_kind(kind) for is_kind in texts)
