"""Large files of JSON lines, mapped from the cache: their lines, parsed when one is asked for.

A list of what the lines hold takes some 1.5 KB a row, in every process.
"""

import json
from collections.abc import Iterable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from ptft.data.fields.label_values import LabelCodes
from ptft.data.hashing import digest_of
from ptft.data.kept import PackedTexts, keep, kept, state_of
from ptft.data.mapped import map_kept, write_kept
from ptft.data.sources.csv_columns import FILE
from ptft.data.sources.plain_rows import LARGE, check_size, json_lines

__all__ = ["ROWS_AT_ONCE", "JsonRows", "open_json_rows"]

ROWS_AT_ONCE = 1 << 14
"""Rows that are in memory at once while a file is read."""


class JsonRows(Sequence[dict[str, Any]]):
    """Rows by number.

    Args:
        lines: an object each.

    Attributes:
        names: of all columns, in the order of their first rows.
        paths: of the column ``file_name``; empty where a row has no text there.
        state: what tells this state of the file from others.
    """

    def __init__(
        self, lines: PackedTexts, paths: PackedTexts, names: list[str], state: str
    ) -> None:
        self._lines, self.paths, self.names, self.state = lines, paths, names, state

    def __len__(self) -> int:
        return len(self._lines)

    def __getitem__(self, row: Any) -> Any:
        return json.loads(self._lines[row])

    def column(self, name: str) -> LabelCodes:
        """A column of all rows, which is read once."""
        found = kept("json column", name, self.state)
        if found is not None:
            return LabelCodes.of_arrays(found)
        lines = iter(self._lines)
        pieces = iter(
            lambda: [json.loads(line).get(name) for line in islice(lines, ROWS_AT_ONCE)], []
        )
        codes = LabelCodes.joined(map(LabelCodes.of, pieces))
        if {type(value) for value in codes.values} <= {str, int}:
            codes = LabelCodes.of_arrays(keep(codes.arrays(), "json column", name, self.state))
        return codes


def open_json_rows(path: Path) -> JsonRows | None:
    """The rows of a large file; None where it is small, or to be read row by row: that names what
    is broken. Raises DataError: it is absent, no plain file, or too large."""
    if check_size(path) < LARGE:
        return None
    key = digest_of("json lines", path.resolve(), *(state_of(path) or ()))
    files = [f"{digest_of(key, part)[:32]}.bin" for part in ("l", "le", "p", "pe", "names")]
    found = map_kept(files) or write_kept(files, lambda opened: _write(path, opened))
    if found is None:
        return None
    lines, paths = (PackedTexts(found[n], found[n + 1].view(np.int64)) for n in (0, 2))
    return JsonRows(lines, paths, json.loads(found[4].tobytes()), key) if len(lines) else None


def _write(path: Path, files: Sequence[BinaryIO]) -> bool:
    """Write the lines of a file, its paths, where each of both ends, and the columns' names."""
    rows = json_lines(path)
    names: dict[str, None] = {}
    ends = [0, 0]
    while some := list(islice(rows, ROWS_AT_ONCE)):
        given = [row.get(FILE) for _, row in some]
        texts = [text if isinstance(text, str) else "" for text in given]
        for row in some:
            names.update(dict.fromkeys(row[1]))
        try:
            for part, column in enumerate(((line for line, _ in some), texts)):
                ends[part] = _append(files[2 * part : 2 * part + 2], column, ends[part])
        except UnicodeEncodeError:
            return False  # half of a surrogate pair, which a file holds no text of
    files[4].write(json.dumps(list(names)).encode())
    return True


def _append(files: Sequence[BinaryIO], column: Iterable[str], end: int) -> int:
    """Write texts behind others that end there; where they end."""
    rows = [text.encode() for text in column]
    files[0].write(b"".join(rows))
    ends = end + np.cumsum([len(row) for row in rows], dtype=np.int64)
    files[1].write(ends.data)
    return int(ends[-1])
