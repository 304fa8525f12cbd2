"""Readers of CSV and JSON lines files: all rows, in memory."""

import csv
import io
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from ptft.data.fields.templates import clean_text, printed_texts
from ptft.errors import DataError
from ptft.files.bounds import load_row

__all__ = [
    "LARGE",
    "READ",
    "check_size",
    "column_names",
    "json_lines",
    "read_cell",
    "read_csv",
    "read_jsonl",
]

LARGE = 1 << 20
"""Bytes of a file from which on its rows are mapped from the cache."""

_MAX_FILE = 4 << 30  # bytes: they are all in memory, as 10 million captions are
_MAX_LINE = 4 << 20  # bytes of a line of JSON
_MAX_COLUMNS = 4096
_MAX_NAME = 1024  # characters of a column's name
_FREE_CELLS = 1 << 20  # that a table may have beyond one a byte


def read_csv(path: Path) -> list[dict[str, Any]]:
    """Rows by the names of the first line; a cell that holds a list of texts is that list.

    Raises:
        DataError: naming the file and the row.
    """
    size = check_size(path)
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise _not_utf8(path, error) from None
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or error}") from None
    reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    rows: list[dict[str, Any]] = []
    try:
        names = column_names(path, reader.fieldnames or [])
        reader.fieldnames = names
        for row in reader:
            if None in row:
                raise DataError(
                    f"{path}: row {len(rows) + 1}: more cells than the first line has names"
                )
            rows.append({name: read_cell(value) for name, value in row.items()})
            if len(rows) * len(names) > _FREE_CELLS + size:  # rows that are shorter than the first
                raise DataError(
                    f"{path}: row {len(rows)}: {len(rows) * len(names):,} cells in {size:,} bytes; "
                    f"allowed: {_FREE_CELLS + size:,}"
                )
    except csv.Error as error:
        raise DataError(f"{path}: row {len(rows) + 1}: {error}") from None
    return rows


def check_size(path: Path) -> int:
    """Give a file's size in bytes. Raises DataError: it is absent, no plain file, or too large."""
    try:
        size = path.stat().st_size
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or error}") from None
    if not path.is_file():
        raise DataError(f"{path}: not a plain file")
    if size > _MAX_FILE:
        raise DataError(f"{path}: {size:,} bytes; allowed: at most {_MAX_FILE:,}; parquet has more")
    return size


def column_names(path: Path, names: Sequence[str]) -> list[str]:
    """The names in the first line, cleaned. Raises DataError: there are too many, or two alike."""
    names = [clean_text(name) for name in names]
    if len(names) > _MAX_COLUMNS:
        raise DataError(f"{path}: {len(names):,} columns; allowed: at most {_MAX_COLUMNS:,}")
    if (longest := max(map(len, names), default=0)) > _MAX_NAME:
        raise DataError(
            f"{path}: a column's name of {longest:,} characters; allowed: at most {_MAX_NAME:,}"
        )
    twice = next((name for name, count in Counter(names).items() if count > 1), None)
    if twice is not None:
        raise DataError(f"{path}: two columns are named {twice!r}; allowed: different names")
    for mark, called in ((";", "semicolons"), ("\t", "tabs")):
        if len(names) == 1 and mark in names[0]:
            raise DataError(
                f"{path}: row 1: one column, {names[0]!r}; its cells are parted by {called}; "
                "allowed: commas"
            )
    return names


def read_cell(value: Any) -> Any:
    """A cell; where it is a list of texts, that list (``printed_texts``)."""
    found = printed_texts(value) if isinstance(value, str) else None
    return value if found is None else found


def _not_utf8(path: Path, error: UnicodeDecodeError) -> DataError:
    """What to do about a file in another encoding."""
    data = bytes(error.object)
    if data[:2] == b"\x1f\x8b":
        return DataError(f"{path}: packed by gzip; allowed: a plain file (gunzip)")
    wide = data[:2] in (b"\xff\xfe", b"\xfe\xff")
    line = data[: error.start].count(b"\n") + 1
    where = f"byte 0x{data[error.start]:02x}"
    return DataError(
        f"{path}: line {line}: not UTF-8 ({where}); save it as UTF-8, or: iconv -f "
        f"{'utf-16' if wide else 'cp1252'} -t utf-8 {path.name}"
    )


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """One object a line, blank lines left out. Raises DataError naming the file and the line."""
    return [row for _, row in json_lines(path)]


def json_lines(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Lines that are not blank and the object in each; raises (on iteration) as ``read_jsonl``."""
    check_size(path)
    with path.open("rb") as stream:
        lines = iter(lambda: stream.readline(_MAX_LINE + 1), b"")
        for number, line in enumerate(lines, start=1):
            if len(line) > _MAX_LINE:
                raise DataError(
                    f"{path}: line {number}: more than {_MAX_LINE:,} bytes; allowed: at most that"
                )
            if not line.strip():
                continue
            try:
                text = line.decode("utf-8-sig")
                row = load_row(text)
            except UnicodeDecodeError as error:
                error.object = b"\n" * (number - 1) + line  # the line's number, in the message
                error.start += number - 1
                raise _not_utf8(path, error) from None
            except (ValueError, RecursionError) as error:
                raise DataError(f"{path}: line {number}: not JSON: {error}") from None
            if not isinstance(row, dict):
                raise DataError(f"{path}: line {number}: {type(row).__name__}; allowed: an object")
            yield text, row


READ: dict[str, Callable[[Path], list[dict[str, Any]]]] = {".csv": read_csv, ".jsonl": read_jsonl}
