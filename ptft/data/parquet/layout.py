"""What the footers of a table's files say, as arrays: large tables have very many row groups.

It is read once for a state of the files and then mapped from the cache, so that a process that
reads samples gets it as a path and a few numbers.
"""

import hashlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet

from ptft.data.hashing import digest_of
from ptft.data.kept import MANY, Arrays, keep, kept, read_texts, settled, state_of, texts
from ptft.data.parquet.file import parquet_errors, row_groups
from ptft.data.parquet.footer import Chunk, Group, footer_bytes
from ptft.errors import DataError
from ptft.speech import counted

__all__ = ["Layout"]

_MARK = 16  # bytes of a footer's digest
_HUGE = 1 << 62  # bytes or values; who says more is refused as one who says as many
_Column = tuple[Arrays, list[tuple[int, ...]]]


@dataclass(frozen=True)
class _Known(Group):
    """A row group of which some columns' chunks are known, by their place."""

    chunks: Mapping[int, Chunk] = field(default_factory=dict)

    def chunk(self, number: int) -> Chunk:
        return self.chunks[number]


class Layout:
    """The row groups of parquet files, file after file; shape letters: F files, G groups.

    Args:
        paths: of the files, whose columns are the same.

    Attributes:
        schema: of the first file.
        state: what tells the files from others; None where they are small, or were just written.
        rows_g: int64 (G,), of each group.
        first_f: int64 (F + 1,), the number of each file's first group.

    Raises:
        DataError: a file is no parquet, or has other columns than the first.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        self._paths = list(paths)
        self.schema = _schema(self._paths[0])
        self._parsed: list[list[Group]] | None = None
        self._columns: dict[str, _Column] = {}
        looked, states = time.time(), [state_of(path) for path in self._paths]
        there = [state for state in states if state is not None]
        state = None
        if len(there) == len(states) and settled(there, looked):
            state = digest_of(*there)
        found = None if state is None else kept("parquet groups", state)
        if found is None:
            found = self._read()
            state = state if found["rows"].sum() >= MANY else None
            found = found if state is None else keep(found, "parquet groups", state)
        self.state = state
        self.rows_g, self.first_f = found["rows"], found["first"]
        self._kind_g, self._marks, self._sizes = found["kind"], found["marks"], found["sizes"]
        self._kinds = [tuple(map(tuple, paths)) for paths in read_texts(found, "kinds")]

    def place(self, number: int) -> tuple[int, int]:
        """The file that a group lies in, and its place there."""
        file = int(np.searchsorted(self.first_f, number, side="right")) - 1
        return file, number - int(self.first_f[file])

    def group(self, number: int, columns: Sequence[str]) -> Group:
        """A group, with what is said of some columns."""
        chunks = {}
        paths = self._kinds[self._kind_g[number]]
        for name in columns:
            column, encodings = self._column(name)
            first = int(column["ends"][number - 1]) if number else 0
            for row in column["chunks"][first : int(column["ends"][number])].tolist():
                place, coded, *numbers = row
                chunks[place] = Chunk(paths[place], encodings[coded], *numbers)
        return _Known(int(self.rows_g[number]), paths, chunks=chunks)

    def kinds(self, file: int) -> list[Group]:
        """The columns' names that the groups of a file have, each once."""
        numbers = np.unique(self._kind_g[self.first_f[file] : self.first_f[file + 1]])
        return [Group(0, self._kinds[number]) for number in numbers]

    def sizes(self, columns: Sequence[str]) -> np.ndarray:
        """Of columns of each group as read, in bytes: float64 (G,)."""
        total_g = np.zeros(len(self.rows_g))
        for name in columns:
            column, _ = self._column(name)
            group_l = np.repeat(np.arange(len(total_g)), np.diff(column["ends"], prepend=0))
            total_g += np.bincount(group_l, column["chunks"][:, 3], len(total_g))
        return total_g

    def footer_size(self, file: int) -> int:
        """Of a file's footer, in bytes."""
        return int(self._sizes[file])

    def check_same(self, file: int) -> None:
        """Hold a file to be the one that was looked at. Raises DataError: its footer is another."""
        path = self._paths[file]
        with parquet_errors(path):
            footer = footer_bytes(path)
        if _mark(footer) != self._marks[file].tobytes():
            raise DataError(f"{path}: it has changed since this set was opened")

    def let_go(self) -> None:
        """Keep what was asked for alone."""
        self._parsed = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_parsed": None}

    def _footers(self) -> list[list[Group]]:
        if self._parsed is None:
            paths = counted(self._paths, "opening parquet files", len(self._paths))
            self._parsed = [self._footer(path) for path in paths]
        return self._parsed

    def _footer(self, path: Path) -> list[Group]:
        names = _schema(path).names
        if set(names) != set(self.schema.names):
            raise DataError(
                f"{path}: columns {', '.join(names)}; {self._paths[0]} has "
                f"{', '.join(self.schema.names)}"
            )
        return row_groups(path)

    def _read(self) -> Arrays:
        kinds: dict[tuple[tuple[str, ...], ...], int] = {}
        rows, kind, counts, marks, sizes = [], [], [0], [], []
        for groups in self._footers():
            footer = groups[0].footer if groups else b""
            marks.append(_mark(footer))
            sizes.append(len(footer))
            counts.append(len(groups))
            rows += [group.rows for group in groups]
            kind += [kinds.setdefault(group.paths, len(kinds)) for group in groups]
        return {
            "rows": np.array(rows, np.int64),
            "first": np.cumsum(counts, dtype=np.int64),
            "kind": np.array(kind, np.int32),
            "marks": np.frombuffer(b"".join(marks), np.uint8).reshape(-1, _MARK),
            "sizes": np.array(sizes, np.int64),
            **texts(kinds=list(kinds)),
        }

    def _column(self, name: str) -> _Column:
        """Of a column of each group its chunks, (L, 6): place, number of the encodings, values,
        size, packed and start; where each group's end, (G,); and the encodings."""
        if name not in self._columns:
            about = ("parquet chunks", name, self.state)
            found = None if self.state is None else kept(*about)
            if found is None:
                found = self._read_column(name)
                found = found if self.state is None else keep(found, *about)
            encodings = [tuple(one) for one in read_texts(found, "encodings")]
            self._columns[name] = found, encodings
        return self._columns[name]

    def _read_column(self, name: str) -> Arrays:
        chunks: list[tuple[int, ...]] = []
        ends: list[int] = []
        encodings: dict[tuple[int, ...], int] = {}
        for path, groups in zip(self._paths, self._footers(), strict=True):
            for group in groups:
                for place, named in enumerate(group.paths):
                    if named[0] == name:
                        with parquet_errors(path):
                            chunk = group.chunk(place)
                        coded = encodings.setdefault(chunk.encodings, len(encodings))
                        numbers = (min(number, _HUGE) for number in chunk[2:])
                        chunks.append((place, coded, *numbers))
                ends.append(len(chunks))
        return {
            "chunks": np.array(chunks, np.int64).reshape(-1, 6),
            "ends": np.array(ends, np.int64),
            **texts(encodings=list(encodings)),
        }


def _mark(footer: bytes) -> bytes:
    return hashlib.blake2b(footer, digest_size=_MARK).digest()


def _schema(path: Path) -> pyarrow.Schema:
    with parquet_errors(path), pyarrow.parquet.ParquetFile(path) as file:
        schema = file.schema_arrow
        list(schema.names)  # raises where one is no UTF-8
        return schema
