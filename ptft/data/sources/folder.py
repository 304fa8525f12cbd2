"""Pictures in a folder: one folder a class, or a metadata table that names them."""

import os
import unicodedata
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from ptft.data.fields.field_set import FieldSet
from ptft.data.fields.joining import AUTO_BYTES, TAIL, first_rows, same_bytes, too_large
from ptft.data.fields.labels import Learn
from ptft.data.fields.templates import clean_text
from ptft.data.hashing import digest_of, file_state
from ptft.data.listing import Listing, list_pictures, read_picture
from ptft.data.sources.plain_rows import READ
from ptft.errors import DataError, SampleError
from ptft.files.bounds import check_inside
from ptft.recipe.data import FolderData

__all__ = ["Folder"]

_TABLES = ("metadata.csv", "metadata.jsonl", "metadata.parquet")
_FILE = "file_name"  # the column that names a picture, as Hugging Face's ImageFolder has it
_SETS = 8  # whose equal pictures a process remembers: a set is opened several times in a run
_SAME: dict[str, np.ndarray] = {}
_SPLITS = frozenset(("train", "training", "val", "valid", "validation", "dev", "test", "testing"))


class Folder(FieldSet):
    """Pictures under a folder, in the order of its table or of their names.

    Without a table the field ``label`` of a picture is the folder at the top that it lies in.

    Args:
        section: captions, label and classes.
        folder: holds ``metadata.csv``, ``.jsonl`` or ``.parquet``, or one folder a class.
        classes: names to number the labels by, where the section has none.
        learn: reads the classes of the section's training set.

    Raises:
        DataError: no picture, more than one table, a table without ``file_name`` or with a path
            that leaves the folder, folders that are splits or hold nothing, or a label that is of
            no class.
    """

    def __init__(
        self,
        section: FolderData,
        folder: Path,
        classes: Sequence[str] | None = None,
        learn: Learn | None = None,
    ) -> None:
        if not folder.is_dir():
            raise DataError(f"{folder}: not a folder")
        self._folder = folder
        self._table = table = _find_table(folder)
        self._checked = table is not None  # what a table names is not to be trusted
        if section.boxes is not None and table is None:
            raise DataError(
                f"data.boxes: {section.boxes!r}: a field of a metadata table; {folder} has none"
            )
        super().__init__(section, label="label" if table is None else None)
        if table is not None:
            self._rows = _read_table(table)
            self.text_is = "untyped" if table.suffix.lower() == ".csv" else "typed"
            self._find_spellings()
        else:
            self.text_is = "folder"
            listing = list_pictures(folder)
            self._rows = _class_rows(listing, folder, named=bool(section.classes or classes))
            self.said += _merged(listing.folders)
            self.said += [*listing.passed_over.lines(), *_unread_tables(listing)]
        self._settle(classes, learn)

    def _count_rows(self) -> int:
        return len(self._rows)

    def notes(self, readers: int) -> list[str]:
        return [*self.said, *self._unnamed]

    @cached_property
    def _unnamed(self) -> list[str]:
        """What lies beside the table and is not in it, in words."""
        if not self._checked:
            return []
        listing = list_pictures(self._folder)
        named = {PurePosixPath(row[_FILE].replace("\\", "/")).as_posix() for row in self._rows}
        for name in listing.pictures:
            if name not in named:
                listing.passed_over.add("pictures that the table does not name", name)
        return listing.passed_over.lines()

    def _row_name(self, row: int) -> str:
        name: str = self._rows[row][_FILE]
        return name

    def _read_fields(self, row: int) -> Mapping[str, Any]:
        return {key: value for key, value in self._rows[row].items() if key != _FILE}

    def picture_place(self, index: int) -> tuple[Path, int, int]:
        path = self._folder / self.name(index)
        return path, 0, file_state(path, "")[1]

    def absent(self) -> list[int]:
        return [index for index in range(len(self)) if not self._is_there(self.rows(index)[0])]

    def _is_there(self, row: int) -> bool:
        return (self._folder / self._row_name(row)).is_file()

    def _path(self, row: int) -> Path:
        name = self._row_name(row)
        path = self._folder / name
        if self._checked and not path.resolve().is_relative_to(self._folder.resolve()):
            raise SampleError(f"{name}: it links to a place outside {self._folder}", "unreadable")
        return path

    def _read_row(self, row: int) -> bytes:
        name = self._row_name(row)
        inside = self._folder if self._checked else None
        return read_picture(name, self._folder / name, self.section.max_pixels, inside)

    def _read_tail(self, row: int) -> bytes:
        try:
            if not (path := self._path(row)).is_file():
                raise SampleError(f"{self._row_name(row)}: not a plain file", "unreadable")
            with path.open("rb") as stream:
                stream.seek(0, os.SEEK_END)
                stream.seek(max(0, stream.tell() - TAIL))
                return stream.read()
        except OSError as error:
            raise self._unreadable(row, error) from None

    def _unreadable(self, row: int, error: OSError) -> SampleError:
        return SampleError(f"{self._row_name(row)}: {error.strerror or error}", "unreadable")

    def _find_spellings(self) -> None:
        """Where a table spells a name in one form of Unicode and the disk in another, take the
        disk's."""
        for row in self._rows:
            name = row[_FILE]
            if not name.isascii() and not (self._folder / name).exists():
                for form in ("NFC", "NFD"):
                    spelt = unicodedata.normalize(form, name)
                    if (self._folder / spelt).exists():
                        row[_FILE] = spelt

    def _sources(self) -> Iterator[object]:
        for row in self._rows:
            yield file_state(self._folder / row[_FILE], row[_FILE]), row

    def _schema_names(self) -> list[str] | None:
        if self._table is None or self._table.suffix.lower() != ".parquet":
            return None
        from ptft.data.parquet.file import open_parquet, row_groups
        from ptft.data.parquet.rows import schema_names

        with open_parquet(self._table, row_groups(self._table)) as file:
            return schema_names(file.schema_arrow, self.section.boxes or self.label_field or "")

    def _label_values(self) -> Sequence[Any]:
        return [row.get(self.label_field or "") for row in self._rows]

    def _field_names(self) -> set[str]:
        return {name for row in self._rows for name in row}

    def _same_pictures(self) -> np.ndarray | None:
        section = self.section
        # class folders have no captions to join, but equal pictures are held out as one
        if section.join == "none" or (not self._checked and section.hold_out is None):
            return None
        if section.picture_id is not None:
            return first_rows(self._picture_ids())
        names = [PurePosixPath(row[_FILE].replace("\\", "/")).as_posix() for row in self._rows]
        same = first_rows(names)
        sizes, times = np.zeros((2, len(names)), np.int64)
        for row in np.unique(same).tolist():
            sizes[row], times[row] = file_state(self._folder / names[row], "")[1:]
        if section.join == "auto" and int(sizes.sum()) > AUTO_BYTES:
            self.said.append(too_large(int(sizes.sum())))
            return same
        state = digest_of(self._folder.resolve(), *names, sizes.tobytes(), times.tobytes())
        if state not in _SAME:
            _SAME[state] = same_bytes(sizes, self._read_tail, self._read_row)[same]
            while len(_SAME) > _SETS:
                del _SAME[next(iter(_SAME))]
        return _SAME[state]


def _find_table(folder: Path) -> Path | None:
    """The metadata table of a folder, in any case of its name. Raises DataError: there are two."""
    found = (path for path in folder.iterdir() if path.name.lower() in _TABLES)
    there = {path.name.lower(): path for path in found if path.is_file()}
    tables = [there[name] for name in _TABLES if name in there]
    if len(tables) > 1:
        names = " and ".join(table.name for table in tables)
        raise DataError(f"{folder}: {names}; allowed: one table")
    return tables[0] if tables else None


def _class_rows(listing: Listing, folder: Path, *, named: bool) -> list[dict[str, Any]]:
    """One row a picture of the ImageFolder layout.

    Args:
        named: the classes have names already, so that a folder may be empty, or called "train".
    """
    inside = [name for name in listing.pictures if "/" in name]
    beside = [name for name in listing.pictures if "/" not in name]
    rows = [{_FILE: name, "label": name.partition("/")[0]} for name in inside]
    if not rows:
        there = "; ".join([*listing.passed_over.lines(), *_unread_tables(listing)])
        raise DataError(
            f"{folder}: no pictures in folders of it; allowed: one folder a class, or pictures "
            f"beside one of {', '.join(_TABLES)}"
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
    pictures = Counter(row["label"] for row in rows)
    empty = [name for name in listing.folders if not pictures[name]]
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
    return rows


def _merged(folders: Sequence[str]) -> list[str]:
    """Folders whose names are two spellings of one, in words."""
    spelt: dict[str, str] = {}
    return [
        f"two folders are one class, {clean_text(name)!r}: {spelt[clean_text(name)]!r}, {name!r}"
        for name in folders
        if spelt.setdefault(clean_text(name), name) != name
    ]


def _unread_tables(listing: Listing) -> list[str]:
    lines = []
    inside = [name for name in listing.tables if "/" in name]
    if inside:
        lines.append(
            f"passed over: {len(inside):,} metadata tables inside class folders (first: "
            f"{inside[0]}); a table is read where data.train (val, test) names its folder"
        )
    lines += [
        f"passed over: {name}: a table in a form that is not read; allowed: {', '.join(_TABLES)} "
        "(one JSON object a line in metadata.jsonl)"
        for name in listing.tables
        if "/" not in name
    ]
    return lines


def _read_table(path: Path) -> list[dict[str, Any]]:
    read = {**READ, ".parquet": _read_parquet}
    rows = read[path.suffix.lower()](path)
    if not rows:
        raise DataError(f"{path}: no rows")
    for number, row in enumerate(rows, start=1):
        name = row.get(_FILE)
        if not isinstance(name, str) or not name.strip():
            there = ", ".join(str(key) for key in row) or "none"
            raise DataError(f"{path}: row {number}: no {_FILE}; columns: {there[:500]}")
        check_inside(name, f"{path}: row {number}: {_FILE}", error=DataError)
    return rows


def _read_parquet(path: Path) -> list[dict[str, Any]]:
    from ptft.data.parquet.file import column_values, open_parquet, read_group, row_groups

    rows: list[dict[str, Any]] = []
    groups = row_groups(path)
    with open_parquet(path, groups) as file:
        for number in range(len(groups)):
            table = read_group(file, path, groups, number, None)
            names = table.column_names
            columns = [column_values(table[name], path, name) for name in names]
            rows += [dict(zip(names, cells, strict=True)) for cells in zip(*columns, strict=True)]
    return rows
