"""Rows of CSV and JSON lines files, file after file: texts and labels, no pictures."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ptft.data.fields.label_values import LabelCodes
from ptft.data.fields.labels import TextIs
from ptft.data.hashing import file_state
from ptft.data.sources.csv_columns import CsvColumns, open_columns
from ptft.data.sources.json_rows import JsonRows, open_json_rows
from ptft.data.sources.plain_rows import READ
from ptft.errors import DataError
from ptft.files.bounds import brief

__all__ = ["PlainRows", "open_large"]


class _Few:
    """The rows of a small file."""

    def __init__(self, rows: list[dict[str, Any]]) -> None:
        self._rows = rows
        self.names = list(dict.fromkeys(key for row in rows for key in row))

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, row: int) -> dict[str, Any]:
        return self._rows[row]

    def column(self, name: str) -> LabelCodes:
        return LabelCodes.of(row.get(name) for row in self._rows)


def open_large(path: Path) -> CsvColumns | JsonRows | None:
    """The rows of a large file, mapped; None where it is to be read row by row.

    Raises:
        DataError: it cannot be read.
    """
    return open_columns(path) if path.suffix.lower() == ".csv" else open_json_rows(path)


class PlainRows:
    """Rows of files without pictures, file after file.

    Args:
        paths: of ``.csv`` or ``.jsonl`` files.

    Raises:
        DataError: a file cannot be read, has other columns than the first, or there is no row.
    """

    window: int | None = None
    blocks: np.ndarray | None = None
    text_is: TextIs

    def __init__(self, paths: Sequence[Path]) -> None:
        self._paths = list(paths)
        plain = any(path.suffix.lower() == ".csv" for path in paths)
        self.text_is = "untyped" if plain else "typed"
        self._parts: list[_Few | CsvColumns | JsonRows] = [
            open_large(path) or _Few(READ[path.suffix.lower()](path)) for path in self._paths
        ]
        self._firsts = np.cumsum([0, *map(len, self._parts)])
        if not len(self):
            raise DataError(f"{self._paths[0]}: no rows")
        self._check_columns()
        self.columns = list(dict.fromkeys(name for part in self._parts for name in part.names))
        self._fields: list[str] = []

    def _check_columns(self) -> None:
        """Hold CSV files to the columns of the first: what one lacks would be empty in its rows,
        and one without a line of names has other ones."""
        pairs = zip(self._paths, self._parts, strict=True)
        plain = [pair for pair in pairs if pair[0].suffix.lower() == ".csv" and len(pair[1])]
        for path, part in plain[1:]:
            first, known = plain[0]
            if odd := sorted({*part.names} ^ {*known.names}):
                raise DataError(
                    f"{path}: {brief(odd[0])} is a column of one of it and {first}; allowed: the "
                    "same first line, of names, in all"
                )

    def __len__(self) -> int:
        return int(self._firsts[-1])

    def use(self, picture: str | None, fields: Sequence[str]) -> None:
        assert picture is None, "such files hold no pictures"
        self._fields = list(fields)

    def name(self, index: int) -> str:
        part, row = self._find(index)
        return f"{self._paths[part].name}/{row}"

    def fields(self, index: int) -> Mapping[str, Any]:
        part, place = self._find(index)
        row = self._parts[part][place]
        return {name: row.get(name) for name in self._fields}

    def picture(self, index: int) -> Any:
        raise AssertionError("such files hold no pictures")

    def column(self, name: str) -> LabelCodes:
        return LabelCodes.joined(part.column(name) for part in self._parts)

    def stored_files(self) -> list[Path]:
        return list(self._paths)

    def sources(self) -> list[object]:
        return [file_state(path, path.name) for path in self._paths]

    def class_names(self, name: str) -> list[str] | None:
        return None

    def same_pictures(self, auto: bool) -> None:
        return None

    def _find(self, index: int) -> tuple[int, int]:
        if not 0 <= index < len(self):
            raise IndexError(f"there are {len(self)} rows; there is no number {index}")
        part = int(np.searchsorted(self._firsts, index, side="right")) - 1
        return part, index - int(self._firsts[part])
