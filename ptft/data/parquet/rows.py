"""Rows of parquet files, read by row group when one of their rows is wanted; large groups in parts.

Pages lie behind each other, and only a reader that passed through those before finds a row in one.
So a part is read by going on from the one before it, or, after a jump back, from the group's start.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet

from ptft.data.boxes.objects import feature_names
from ptft.data.fields.joining import AUTO_BYTES, digest_picture, first_rows, too_large
from ptft.data.fields.label_values import LabelCodes
from ptft.data.fields.labels import TextIs
from ptft.data.hashing import file_state
from ptft.data.kept import keep, kept
from ptft.data.parquet.file import column_codes, group_parts, open_parquet, read_group
from ptft.data.parquet.footer import Group
from ptft.data.parquet.layout import Layout
from ptft.errors import DataError, SampleError
from ptft.speech import counted

__all__ = ["AT_ONCE", "KEPT_BYTES", "OPEN_BYTES", "ParquetRows", "schema_names"]

KEPT_BYTES = 512 << 20  # bytes of decoded row groups that a process keeps at most
AT_ONCE = 64 << 20
"""Bytes of the columns in use of a row group, up to which they are read at once."""
_PARTS = 4  # of so many bytes, of a larger one
_OPEN = 64  # files held open at once
OPEN_BYTES = 16 << 20
"""Bytes of the footers of open files together; what is made of one takes several times as much."""
_READING = 16  # groups that are being read in parts; each has a page of each column in memory
_SETS = 8  # whose equal pictures a process remembers: a set is opened several times in a run
_SAME: dict[tuple[tuple[str, ...], str], np.ndarray] = {}


class ParquetRows:
    """Rows of parquet files, file after file.

    Where the pictures fit in memory (512 MiB) rows are shuffled freely. Else row groups are
    shuffled as wholes and rows within as many of them as half of that holds; and with ``window``
    groups are read in order, so that a disk or a network reads straight on.

    Args:
        paths: of the files, whose columns are the same.
        window: read in order and shuffle within this many rows.

    Raises:
        DataError: a file is no parquet, has other columns than the first, or there is no row.
    """

    text_is: TextIs = "typed"

    def __init__(self, paths: Sequence[Path], window: int | None) -> None:
        self._paths = list(paths)
        self.window = window
        self.blocks: np.ndarray | None = None
        self._layout = Layout(self._paths)
        self._schema = self._layout.schema
        self.columns = list(self._schema.names)
        self._groups = np.flatnonzero(self._layout.rows_g)  # by the number of the layout
        self._rows_g = self._layout.rows_g[self._groups]
        self._firsts = np.concatenate([[0], np.cumsum(self._rows_g)])
        if not len(self):
            raise DataError(f"{self._paths[0]}: no rows")
        self._picture = ""
        self._fields: list[str] = []
        self._part_rows: dict[_Columns, np.ndarray] = {}  # of each group
        self._kept = _Kept()
        self._reading: dict[_Of, tuple[int, Iterator[pyarrow.Table]]] = {}  # next part, and on
        self._broken: dict[_Of, tuple[int, str]] = {}  # from this part on, and why
        self._files: dict[int, pyarrow.parquet.ParquetFile] = {}

    def __len__(self) -> int:
        return int(self._firsts[-1])

    def use(self, picture: str | None, fields: Sequence[str]) -> None:
        self._fields = list(fields)
        wanted = [tuple(fields)] if picture is None else [tuple(fields), (picture,)]
        self._part_rows = {columns: self._rows_of_parts(columns) for columns in wanted}
        self._layout.let_go()
        if picture is None:
            return
        kind = self._schema.field(picture).type
        inner = kind
        if pyarrow.types.is_struct(kind) and kind.get_field_index("bytes") >= 0:
            inner = kind.field("bytes").type
        binary = (pyarrow.types.is_binary, pyarrow.types.is_large_binary)
        if not any(is_kind(inner) for is_kind in binary):
            raise DataError(
                f"data.image: column {picture!r} of {self._paths[0]} holds {kind}; "
                "allowed: encoded bytes, or a struct of bytes and path"
            )
        self._picture = picture
        size = self._picture_bytes()
        if self.window is None and size > KEPT_BYTES:
            self.blocks = self._firsts[:-1].astype(np.int64)
            self.window = max(1, len(self) * (KEPT_BYTES // 2) // size)

    def name(self, index: int) -> str:
        group, within = self._find(index)
        file, number = self._layout.place(int(self._groups[group]))
        return f"{self._paths[file].name}/{number}/{within}"

    def fields(self, index: int) -> Mapping[str, Any]:
        group, within = self._find(index)
        if not self._fields:
            return {}
        table, row = self._find_part(group, within, tuple(self._fields))
        return {name: self._cell(table, name, row) for name in self._fields}

    def picture(self, index: int) -> Any:
        group, within = self._find(index)
        table, row = self._find_part(group, within, (self._picture,))
        return self._cell(table, self._picture, row)

    @staticmethod
    def _cell(table: pyarrow.Table, name: str, row: int) -> Any:
        try:
            return table[name][row].as_py()
        except (pyarrow.ArrowException, ValueError) as error:  # no UTF-8, no date
            raise SampleError(f"{name}: {error}") from None

    def column(self, name: str) -> LabelCodes | None:
        if self.window is not None and self.blocks is None:
            return None
        state = self._layout.state
        if state is not None and (found := kept("parquet", name, state)) is not None:
            return LabelCodes.of_arrays(found)
        codes = LabelCodes.joined(self._codes(group, name) for group in range(len(self._groups)))
        if state is not None and {type(value) for value in codes.values} <= {str, int}:
            codes = LabelCodes.of_arrays(keep(codes.arrays(), "parquet", name, state))
        return codes

    def _codes(self, group: int, name: str) -> LabelCodes:
        about = self._about(group, (name,))
        return column_codes(read_group(*about, [name])[name], about[1], name)

    def stored_files(self) -> list[Path]:
        return list(self._paths)

    def sources(self) -> list[object]:
        return [file_state(path, path.name) for path in self._paths]

    def class_names(self, name: str) -> list[str] | None:
        return schema_names(self._schema, name)

    def same_pictures(self, auto: bool) -> np.ndarray | str | None:
        size = self._picture_bytes()
        if self.window is not None and self.blocks is None:
            return "rows read in order are not held against each other (data.streaming)"
        if auto and size > AUTO_BYTES:
            return too_large(size)
        known = (tuple(map(str, self.sources())), self._picture)
        if known not in _SAME:
            _SAME[known] = first_rows(self._digests())
            while len(_SAME) > _SETS:
                del _SAME[next(iter(_SAME))]
        return _SAME[known]

    def _digests(self) -> Iterator[bytes | None]:
        """Of the picture of each row, None for none; row groups are read one after another."""
        columns = (self._picture,)
        parts = self._part_rows[columns].tolist()
        for group in counted(range(len(parts)), "comparing pictures of row groups", len(parts)):
            seen = 0
            try:
                for table in group_parts(*self._about(group, columns), columns, parts[group]):
                    seen += table.num_rows
                    yield from map(_digest, table[self._picture])
            except DataError:  # reading its samples says so
                yield from (None for _ in range(int(self._rows_g[group]) - seen))

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_kept": _Kept(), "_reading": {}, "_broken": {}, "_files": {}}

    def __del__(self) -> None:
        for file in getattr(self, "_files", {}).values():
            file.close()

    def _find(self, index: int) -> tuple[int, int]:
        if not 0 <= index < len(self):
            raise IndexError(f"there are {len(self)} rows; there is no number {index}")
        group = int(np.searchsorted(self._firsts, index, side="right")) - 1
        return group, index - int(self._firsts[group])

    def _rows_of_parts(self, columns: "_Columns") -> np.ndarray:
        """How many rows of each group are read at once: int64 (G,)."""
        size_g = self._layout.sizes(columns)[self._groups]
        part_g = self._rows_g * (AT_ONCE / _PARTS) // np.maximum(size_g, 1)
        part_g = np.clip(part_g, 1, self._rows_g).astype(np.int64)
        return np.where(size_g <= AT_ONCE, self._rows_g, part_g)

    def _find_part(self, group: int, within: int, columns: "_Columns") -> tuple[pyarrow.Table, int]:
        """Columns of a part of a row group, from memory where they were read lately, and the place
        of a row in it."""
        part, row = divmod(within, int(self._part_rows[columns][group]))
        of = (group, columns)
        broken, why = self._broken.get(of, (part + 1, ""))
        if part >= broken:
            raise SampleError(why, "unreadable")
        table = self._kept.get((of, part))
        if table is None:
            table = self._read_on(of, part)
        return table, row

    def _read_on(self, of: "_Of", part: int) -> pyarrow.Table:
        """Read a part of a group, and what lies before it where that was not read just now."""
        group, columns = of
        file, number = self._layout.place(int(self._groups[group]))
        path = self._paths[file]
        place, parts = self._reading.pop(of, (part + 1, None))
        if parts is None or place > part:
            place, parts = 0, self._parts(of)
        try:
            while True:
                table = next(parts)
                self._kept.put((of, place), table)
                place += 1
                if place > part:
                    break
        except DataError as error:
            text = str(error).removeprefix(f"{path}: ").removeprefix(f"row group {number}: ")
            why = f"{path.name}: row group {number}: {text}"
            if place:  # to find that out again would take reading all that lies before
                self._broken[of] = place, why
            raise SampleError(why, "unreadable") from None
        if place * int(self._part_rows[columns][group]) < self._rows_g[group]:
            self._reading[of] = place, parts  # last in the dict: most recently read
        while len(self._reading) > _READING:
            del self._reading[next(iter(self._reading))]
        pyarrow.default_memory_pool().release_unused()  # as much again as what is kept
        return table

    def _parts(self, of: "_Of") -> Iterator[pyarrow.Table]:
        """The parts of a group, one after the other."""
        group, columns = of
        about = self._about(group, columns)
        rows = int(self._part_rows[columns][group])
        if rows == self._rows_g[group]:
            yield read_group(*about, columns)
        else:
            yield from group_parts(*about, columns, rows)

    def _about(self, group: int, columns: "_Columns") -> "_About":
        """What reading columns of a group takes."""
        number = int(self._groups[group])
        file, place = self._layout.place(number)
        return self._open(file), self._paths[file], self._layout.group(number, columns), place

    def _open(self, number: int) -> pyarrow.parquet.ParquetFile:
        file = self._files.pop(number, None)
        if file is None:
            self._layout.check_same(number)
            file = open_parquet(self._paths[number], self._layout.kinds(number))
        self._files[number] = file  # last in the dict: most recently read
        size = sum(map(self._layout.footer_size, self._files))
        while len(self._files) > 1 and (len(self._files) > _OPEN or size > OPEN_BYTES):
            oldest = next(iter(self._files))
            self._files.pop(oldest).close()
            size -= self._layout.footer_size(oldest)
        return file

    def _picture_bytes(self) -> int:
        """Of the picture column as read, over all row groups."""
        return int(self._layout.sizes((self._picture,)).sum())


def _digest(cell: pyarrow.Scalar) -> bytes | None:
    """Of the picture of a cell; None where there is none."""
    value = cell["bytes"] if isinstance(cell, pyarrow.StructScalar) else cell
    if isinstance(value, pyarrow.DictionaryScalar):
        value = value.value
    data = value.as_buffer() if value.is_valid else None
    return None if data is None else digest_picture(data)


_Columns = tuple[str, ...]
_Of = tuple[int, _Columns]  # a row group, and what of it
_About = tuple[pyarrow.parquet.ParquetFile, Path, Group, int]  # what reads one, its place the last


class _Kept:
    """Parts of row groups in memory, the least recently used let go beyond ``KEPT_BYTES`` bytes."""

    def __init__(self) -> None:
        self._tables: dict[tuple[_Of, int], pyarrow.Table] = {}
        self._bytes = 0

    def get(self, key: tuple[_Of, int]) -> pyarrow.Table | None:
        table = self._tables.pop(key, None)
        if table is not None:
            self._tables[key] = table
        return table

    def put(self, key: tuple[_Of, int], table: pyarrow.Table) -> None:
        self._tables[key] = table
        self._bytes += table.nbytes
        while self._bytes > KEPT_BYTES and len(self._tables) > 1:
            oldest = next(iter(self._tables))
            self._bytes -= self._tables.pop(oldest).nbytes


def schema_names(schema: pyarrow.Schema, column: str) -> list[str] | None:
    """Names of a ``ClassLabel`` that ``datasets`` wrote into the schema of a file, of the column or
    of the categories of the boxes in it."""
    try:
        written = json.loads((schema.metadata or {})[b"huggingface"])
        return feature_names(written["info"]["features"][column])
    except (KeyError, TypeError, ValueError, RecursionError):
        return None
