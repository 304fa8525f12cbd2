"""Rows of CSV and JSON lines files: texts and labels, in memory."""

import csv
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ptft.data.hashing import file_state
from ptft.errors import DataError

__all__ = ["READ", "PlainRows", "read_csv", "read_jsonl"]


def read_csv(path: Path) -> list[dict[str, Any]]:
    """Rows by the names of the first line. Raises DataError naming the file and the row."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            rows = list(csv.DictReader(stream, strict=True))
    except (csv.Error, UnicodeDecodeError) as error:
        raise DataError(f"{path}: {error}") from None
    for number, row in enumerate(rows, start=1):
        if None in row:
            raise DataError(f"{path}: row {number}: more cells than the first line has names")
    return rows


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """One object a line, blank lines left out. Raises DataError naming the file and the line."""
    rows = []
    with path.open("rb") as stream:
        for number, line in enumerate(stream, start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except ValueError as error:
                raise DataError(f"{path}: line {number}: not JSON: {error}") from None
            if not isinstance(row, dict):
                raise DataError(f"{path}: line {number}: {type(row).__name__}; allowed: an object")
            rows.append(row)
    return rows


READ: dict[str, Callable[[Path], list[dict[str, Any]]]] = {".csv": read_csv, ".jsonl": read_jsonl}


class PlainRows:
    """Rows of files without pictures, file after file.

    Args:
        paths: of ``.csv`` or ``.jsonl`` files.

    Raises:
        DataError: a file cannot be read, or there is no row.
    """

    window: int | None = None
    blocks: np.ndarray | None = None

    def __init__(self, paths: Sequence[Path]) -> None:
        self._paths = list(paths)
        self._rows: list[dict[str, Any]] = []
        self._names: list[str] = []
        for path in self._paths:
            rows = READ[path.suffix.lower()](path)
            self._rows += rows
            self._names += [f"{path.name}/{number}" for number in range(len(rows))]
        if not self._rows:
            raise DataError(f"{self._paths[0]}: no rows")
        self.columns = list(dict.fromkeys(key for row in self._rows for key in row))
        self._fields: list[str] = []

    def __len__(self) -> int:
        return len(self._rows)

    def use(self, picture: str | None, fields: Sequence[str]) -> None:
        assert picture is None, "such files hold no pictures"
        self._fields = list(fields)

    def name(self, index: int) -> str:
        return self._names[index]

    def fields(self, index: int) -> Mapping[str, Any]:
        row = self._rows[index]
        return {name: row.get(name) for name in self._fields}

    def picture(self, index: int) -> Any:
        raise AssertionError("such files hold no pictures")

    def column(self, name: str) -> list[Any]:
        return [row.get(name) for row in self._rows]

    def sources(self) -> list[object]:
        return [file_state(path, path.name) for path in self._paths]

    def class_names(self, name: str) -> list[str] | None:
        return None
