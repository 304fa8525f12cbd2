"""Pictures in a folder: one folder a class, or a metadata table that names them."""

import os
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from ptft.data.fields.field_set import FieldSet
from ptft.data.fields.joining import AUTO_BYTES, TAIL, first_rows, same_bytes, too_large
from ptft.data.fields.label_values import LabelCodes
from ptft.data.fields.labels import Learn
from ptft.data.hashing import digest_of, file_state
from ptft.data.listing import list_pictures, read_picture
from ptft.data.sources.folder_rows import (
    FILE,
    ClassRows,
    ColumnRows,
    MetadataRows,
    class_rows,
    find_table,
    merged,
    posix,
    read_table,
    unread_tables,
)
from ptft.data.sources.spelling import spelt_otherwise
from ptft.errors import DataError, SampleError
from ptft.recipe.data import FolderData

__all__ = ["Folder"]

_SETS = 8  # whose equal pictures a process remembers: a set is opened several times in a run
_SAME: dict[str, np.ndarray] = {}


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
        self._table = table = find_table(folder)
        self._checked = table is not None  # what a table names is not to be trusted
        if section.boxes is not None and table is None:
            raise DataError(
                f"data.boxes: {section.boxes!r}: a field of a metadata table; {folder} has none"
            )
        super().__init__(section, label="label" if table is None else None)
        if table is not None:
            rows = read_table(table)
            self.text_is = "untyped" if table.suffix.lower() == ".csv" else "typed"
            rows.rename(self._spelt)
            self._rows: ClassRows | MetadataRows | ColumnRows = rows
        else:
            self.text_is = "folder"
            listing = list_pictures(folder)
            self._rows = class_rows(listing, folder, named=bool(section.classes or classes))
            self.said += merged(listing.folders)
            self.said += [*listing.passed_over.lines(), *unread_tables(listing)]
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
        assert not isinstance(self._rows, ClassRows)
        unnamed = self._rows.unnamed(listing.pictures)
        for name in unnamed:
            listing.passed_over.add("pictures that the table does not name", name)
        spelt = None
        if len(self._rows) > len(listing.pictures) - len(unnamed):  # some may not be there
            names = self._rows.names()
            spelt = spelt_otherwise(names, unnamed, lambda name: (self._folder / name).is_file())
        return [*([spelt] if spelt else []), *listing.passed_over.lines()]

    def _row_name(self, row: int) -> str:
        return self._rows.name(row)

    def _read_fields(self, row: int) -> Mapping[str, Any]:
        return self._rows.fields(row)

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

    def _spelt(self, name: str) -> str:
        """Where a table spells a name in one form of Unicode and the disk in another, the
        disk's."""
        if not (self._folder / name).exists():
            for form in ("NFC", "NFD"):
                spelt = unicodedata.normalize(form, name)
                if (self._folder / spelt).exists():
                    return spelt
        return name

    def _sources(self) -> Iterator[object]:
        for row, name in enumerate(self._rows.names()):
            yield file_state(self._folder / name, name), {FILE: name, **self._rows.fields(row)}

    def _schema_names(self) -> list[str] | None:
        if self._table is None or self._table.suffix.lower() != ".parquet":
            return None
        from ptft.data.parquet.file import open_parquet, row_groups
        from ptft.data.parquet.rows import schema_names

        with open_parquet(self._table, row_groups(self._table)) as file:
            return schema_names(file.schema_arrow, self.section.boxes or self.label_field or "")

    def _label_values(self) -> Sequence[Any] | LabelCodes:
        return self._rows.column(self.label_field or "")

    def _field_names(self) -> set[str]:
        return self._rows.columns()

    def _same_pictures(self) -> np.ndarray | None:
        section = self.section
        # class folders have no captions to join, but equal pictures are held out as one
        if section.join == "none" or (not self._checked and section.hold_out is None):
            return None
        if section.picture_id is not None:
            return first_rows(self._picture_ids())
        # a listing has each path once
        same = None if isinstance(self._rows, ClassRows) else self._rows.same_paths()
        count = self._count_rows()
        sizes, times = np.zeros((2, count), np.int64)
        total = 0
        for row in range(count):
            if same is None or same[row] == row:
                sizes[row], times[row] = file_state(self._folder / self._row_name(row), "")[1:]
                total += int(sizes[row])
            if section.join == "auto" and total > AUTO_BYTES:
                self.said.append(too_large(total, more=row < count - 1))
                return same
        names = map(posix, self._rows.names())
        state = digest_of(self._folder.resolve(), *names, sizes.tobytes(), times.tobytes())
        if state not in _SAME:
            found = same_bytes(sizes, self._read_tail, self._read_row)
            _SAME[state] = found if same is None else found[same]
            while len(_SAME) > _SETS:
                del _SAME[next(iter(_SAME))]
        return _SAME[state]
