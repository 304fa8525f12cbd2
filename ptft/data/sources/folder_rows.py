"""The rows of a folder of pictures: of its metadata table, or a picture each of class folders."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from ptft.data.fields.joining import first_rows, repeated_numbers
from ptft.data.fields.label_values import LabelCodes
from ptft.data.fields.templates import clean_text
from ptft.data.kept import Arrays, PackedTexts, remembered
from ptft.data.listing import Listing
from ptft.data.sources.csv_columns import FILE, CsvColumns, odd_paths
from ptft.data.sources.json_rows import JsonRows
from ptft.data.sources.plain_rows import READ
from ptft.data.sources.plain_table import open_large
from ptft.data.sources.spelling import means_file
from ptft.errors import DataError
from ptft.files.bounds import check_inside, shown

__all__ = [
    "FILE",
    "ClassRows",
    "ColumnRows",
    "MetadataRows",
    "class_rows",
    "find_table",
    "merged",
    "posix",
    "read_table",
    "unread_tables",
]

TABLES = ("metadata.csv", "metadata.jsonl", "metadata.parquet")
_SPLITS = frozenset(("train", "training", "val", "valid", "validation", "dev", "test", "testing"))


def find_table(folder: Path) -> Path | None:
    """The metadata table of a folder, in any case of its name. Raises DataError: there are two."""
    found = (path for path in folder.iterdir() if path.name.lower() in TABLES)
    there = {path.name.lower(): path for path in found if path.is_file()}
    tables = [there[name] for name in TABLES if name in there]
    if len(tables) > 1:
        names = " and ".join(table.name for table in tables)
        raise DataError(f"{folder}: {names}; allowed: one table")
    return tables[0] if tables else None


class ClassRows:
    """Pictures in class folders, a row each, in the order of their names.

    Args:
        names: of the pictures, inside the folder.
        folders: of their classes.
        codes: int32, of each picture the number of its folder.
    """

    def __init__(self, names: PackedTexts, folders: list[str], codes: np.ndarray) -> None:
        self._names, self._folders, self._codes = names, folders, codes

    def __len__(self) -> int:
        return len(self._codes)

    def name(self, row: int) -> str:
        """The path of a row's picture inside the folder."""
        return self._names[row]

    def names(self) -> Iterable[str]:
        """Of all rows."""
        return self._names

    def fields(self, row: int) -> dict[str, Any]:
        """The other fields of a row."""
        return {"label": self._folders[self._codes[row]]}

    def column(self, field: str) -> LabelCodes:
        """A field of all rows."""
        if field != "label":
            return LabelCodes([], [], np.full(len(self), -1, np.int32))
        return LabelCodes.coded(list(self._folders), self._codes)

    def columns(self) -> set[str]:
        """Names of all fields."""
        return {FILE, "label"}


class MetadataRows:
    """The rows of a metadata table."""

    def __init__(self, rows: list[dict[str, Any]]) -> None:
        self._rows = rows

    def __len__(self) -> int:
        return len(self._rows)

    def name(self, row: int) -> str:
        """The path of a row's picture inside the folder."""
        name: str = self._rows[row][FILE]
        return name

    def names(self) -> Iterable[str]:
        """Of all rows."""
        return (row[FILE] for row in self._rows)

    def rename(self, spell: Callable[[str], str]) -> None:
        """Spell the paths of pictures otherwise; those in ASCII stay."""
        for row in self._rows:
            if not row[FILE].isascii():
                row[FILE] = spell(row[FILE])

    def same_paths(self) -> np.ndarray | None:
        """The first row with each row's path, int64 (R,); None where all differ."""
        same = first_rows(map(posix, self.names()))
        return None if bool((same == np.arange(len(same))).all()) else same

    def unnamed(self, pictures: PackedTexts) -> list[str]:
        """Pictures of a listing that no row names."""
        named = set(map(posix, self.names()))
        return [name for name in pictures if name not in named]

    def fields(self, row: int) -> dict[str, Any]:
        """The other fields of a row."""
        return {key: value for key, value in self._rows[row].items() if key != FILE}

    def column(self, field: str) -> list[Any]:
        """A field of all rows."""
        return [row.get(field) for row in self._rows]

    def columns(self) -> set[str]:
        """Names of all fields."""
        return {name for row in self._rows for name in row}


class ColumnRows:
    """The rows of a large metadata table, mapped.

    Args:
        rows: with a column ``file_name``.
        odd: of ``odd_paths``.
    """

    def __init__(self, rows: CsvColumns | JsonRows, odd: np.ndarray) -> None:
        self._rows = rows
        self._odd: list[int] = odd.tolist()
        self._names = rows.paths
        self._spelt: dict[int, str] = {}

    def __len__(self) -> int:
        return len(self._rows)

    def name(self, row: int) -> str:
        """The path of a row's picture inside the folder."""
        return self._spelt.get(row) or self._names[row]

    def names(self) -> Iterable[str]:
        """Of all rows."""
        if not self._spelt:
            return self._names
        return (self._spelt.get(row, name) for row, name in enumerate(self._names))

    def rename(self, spell: Callable[[str], str]) -> None:
        """Spell the paths of pictures otherwise; those in ASCII stay."""
        for row in self._odd:
            name = self._names[row]
            if (spelt := spell(name)) != name:
                self._spelt[row] = spelt

    def same_paths(self) -> np.ndarray | None:
        """The first row with each row's path, int64 (R,); None where all differ."""
        about = ("paths", self._rows.state)
        # what is spelt as the disk has it may be spelt otherwise tomorrow
        found = (self._same() if self._spelt else remembered(self._same, *about))["same"]
        return found if len(found) else None

    def _same(self) -> Arrays:
        ordered = self.path_hashes()
        ordered.sort()
        if not bool((ordered[1:] == ordered[:-1]).any()):
            return {"same": np.empty(0, np.int64)}
        del ordered  # as large as all the others; most tables have each path once
        rows = repeated_numbers(self.path_hashes().view(np.uint64))
        same = np.arange(len(self))
        same[rows] = rows[first_rows(posix(self.name(row)) for row in rows.tolist())]
        return {"same": same}

    def unnamed(self, pictures: PackedTexts) -> list[str]:
        """Pictures of a listing that no row names."""
        missing = ~np.isin(pictures.hashes(), self.path_hashes())
        return [pictures[number] for number in np.flatnonzero(missing).tolist()]

    def path_hashes(self) -> np.ndarray:
        """A number of each row's path, as a listing has it, int64 (R,); see ``PackedTexts``."""
        found = self._names.hashes()
        found[self._odd] = [hash(posix(self.name(row))) for row in self._odd]
        return found

    def fields(self, row: int) -> dict[str, Any]:
        """The other fields of a row."""
        found: dict[str, Any] = self._rows[row]
        del found[FILE]
        return found

    def column(self, field: str) -> LabelCodes:
        """A field of all rows."""
        return self._rows.column(field)

    def columns(self) -> set[str]:
        """Names of all fields."""
        return set(self._rows.names)


def class_rows(listing: Listing, folder: Path, *, named: bool) -> ClassRows:
    """One row a picture of the ImageFolder layout.

    Args:
        named: the classes have names already, so that a folder may be empty, or called "train".

    Raises:
        DataError: no picture lies in a folder, folders are splits, or one is empty.
    """
    tops, names = listing.tops, listing.pictures
    beside = [names[row] for row in np.flatnonzero(tops < 0).tolist()]
    counts = np.bincount(tops[tops >= 0], minlength=len(listing.folders))
    if not counts.any():
        there = "; ".join([*listing.passed_over.lines(), *unread_tables(listing)])
        raise DataError(
            f"{folder}: no pictures in folders of it; allowed: one folder a class, or pictures "
            f"beside one of {', '.join(TABLES)}"
            + (f"; {len(beside):,} pictures lie beside no table ({beside[0]})" if beside else "")
            + (f"; {there}" if there else "")
        )
    splits = [name for name in listing.folders if clean_text(name).lower() in _SPLITS]
    if not named and (len(splits) > 1 or (splits and len(splits) == len(listing.folders))):
        raise DataError(
            f"{folder}: its folders are splits, not classes: {', '.join(splits)}; name one: "
            f"data.train: {folder / splits[0]}; allowed: one folder a class (data.classes, if "
            "these are classes)"
        )
    empty = [name for name, count in zip(listing.folders, counts, strict=True) if not count]
    if empty and not named:
        there = "; ".join(listing.passed_over.lines())
        raise DataError(
            f"{folder}: no picture in {', '.join(map(repr, empty))}; allowed: pictures in each "
            "class's folder, no such folder, or data.classes with all names"
            + (f"; {there}" if there else "")
        )
    for name in beside:
        listing.passed_over.add("pictures beside the class folders, in no class", name)
    for name in empty:
        listing.passed_over.add("class folders without a picture", name)
    if beside:
        tops, names = tops[tops >= 0], names.chosen(np.flatnonzero(tops >= 0))
    used = np.flatnonzero(counts)
    numbers = np.zeros(len(counts), np.int32)
    numbers[used] = np.arange(len(used))
    return ClassRows(names, [listing.folders[n] for n in used.tolist()], numbers[tops])


def merged(folders: Sequence[str]) -> list[str]:
    """Folders whose names are two spellings of one, in words."""
    spelt: dict[str, str] = {}
    return [
        f"two folders are one class, {clean_text(name)!r}: {spelt[clean_text(name)]!r}, {name!r}"
        for name in folders
        if spelt.setdefault(clean_text(name), name) != name
    ]


def unread_tables(listing: Listing) -> list[str]:
    """Tables that nothing reads, in words."""
    lines = []
    inside = [name for name in listing.tables if "/" in name]
    if inside:
        lines.append(
            f"passed over: {len(inside):,} metadata tables inside class folders (first: "
            f"{inside[0]}); a table is read where data.train (val, test) names its folder"
        )
    lines += [
        f"passed over: {name}: a table in a form that is not read; allowed: {', '.join(TABLES)} "
        "(one JSON object a line in metadata.jsonl)"
        for name in listing.tables
        if "/" not in name
    ]
    return lines


def read_table(path: Path) -> MetadataRows | ColumnRows:
    """The rows of a metadata table. Raises DataError: it is broken, or names no picture."""
    mapped = None if path.suffix.lower() == ".parquet" else open_large(path)
    if mapped is not None and FILE in mapped.names:
        odd = odd_paths(mapped.paths, mapped.state)
        for number in odd.tolist():
            _check_row(path, number + 1, mapped[number])
        return ColumnRows(mapped, odd)
    read = {**READ, ".parquet": _read_parquet}
    rows = read[path.suffix.lower()](path)
    if not rows:
        raise DataError(f"{path}: no rows")
    for number, row in enumerate(rows, start=1):
        _check_row(path, number, row)
    return MetadataRows(rows)


def _check_row(path: Path, number: int, row: Mapping[str, Any]) -> None:
    name = row.get(FILE)
    if not isinstance(name, str) or not name.strip():
        there = ", ".join(str(key) for key in row) or "none"
        found = f"{FILE} is {shown(name)}" if FILE in row else f"no {FILE}"
        near = [str(key) for key in row if means_file(str(key))] if FILE not in row else []
        meant = f"; {near[0]!r} may be what is meant: call it {FILE}" if near else ""
        raise DataError(
            f"{path}: row {number}: {found}; allowed: a path inside the folder; columns: "
            f"{there[:500]}{meant}"
        )
    check_inside(name, f"{path}: row {number}: {FILE}", error=DataError)


def posix(name: str) -> str:
    """A table's path as a listing has it."""
    return PurePosixPath(name.replace("\\", "/")).as_posix()


def _read_parquet(path: Path) -> list[dict[str, Any]]:
    from ptft.data.parquet.file import column_values, open_parquet, read_group, row_groups

    rows: list[dict[str, Any]] = []
    groups = row_groups(path)
    with open_parquet(path, groups) as file:
        for number in range(len(groups)):
            table = read_group(file, path, groups[number], number, None)
            names = table.column_names
            columns = [column_values(table[name], path, name) for name in names]
            rows += [dict(zip(names, cells, strict=True)) for cells in zip(*columns, strict=True)]
    return rows
