"""Rows of a table as a sample set: one column is the picture or none, others are fields."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ptft.data.fields.field_set import FieldSet
from ptft.data.fields.joining import first_rows
from ptft.data.fields.label_values import LabelCodes
from ptft.data.fields.labels import Learn
from ptft.data.fields.marks import SIZE
from ptft.data.sources.rows import Rows
from ptft.errors import DataError, RecipeError, SampleError, suggest
from ptft.recipe.data import TableData
from ptft.recipe.paths import expand_paths, is_hub_id, split_hub_id

__all__ = ["Table", "open_table"]


_OTHER = (".tsv", ".txt", ".json", ".xls", ".xlsx", ".arrow", ".feather", ".tar", ".zip", ".gz")


class Table(FieldSet):
    """The rows of parquet, CSV or JSON lines files, or of a Hugging Face dataset.

    Args:
        section: picture column, captions, label and classes.
        rows: where rows come from.
        classes: names to number the labels by, where neither the section nor the table has any.

    Raises:
        DataError: a column is absent or cannot be what it is meant to be, or a label is of no
            class.
    """

    def __init__(
        self,
        section: TableData,
        rows: Rows,
        classes: Sequence[str] | None = None,
        learn: Learn | None = None,
    ) -> None:
        super().__init__(section, label=None)
        self._rows = rows
        self.text_is = rows.text_is
        self._image = section.image
        self._names: list[str] | None = None
        if section.image is not None:
            self._require("data.image", section.image)
        if self.label_field is not None:
            self._require("data.label", self.label_field)
            self._names = rows.class_names(self.label_field)
        wanted = self.templates.fields - ({"class"} if self.label_field else set())
        if not (self.templates.lenient and (self.label_field or section.boxes)):
            for name in sorted(wanted):
                self._require("data.captions", name)
        wanted |= {self.label_field} if self.label_field else set()
        if section.picture_id is not None:
            self._require("data.picture_id", section.picture_id)
            wanted |= {section.picture_id}
        if section.group is not None:
            self._require("data.group", section.group)
            wanted |= {section.group}
        if section.boxes is not None:
            self._require("data.boxes", section.boxes)
            wanted |= {section.boxes, *SIZE}
        rows.use(section.image, sorted(wanted & set(rows.columns)))
        self.window, self.blocks = rows.window, rows.blocks
        self._settle(classes, learn)

    def _require(self, key: str, column: str) -> None:
        if column not in self._rows.columns:
            raise DataError(
                f"{key}: {column!r}: no such column; {suggest(column, self._rows.columns)}"
            )

    def _count_rows(self) -> int:
        return len(self._rows)

    def _row_name(self, row: int) -> str:
        return self._rows.name(row)

    def _schema_names(self) -> list[str] | None:
        if self.section.boxes is not None:
            return self._rows.class_names(self.section.boxes)
        return self._names

    def _read_fields(self, row: int) -> Mapping[str, Any]:
        return self._rows.fields(row)

    def _read_row(self, row: int) -> bytes:
        name = self._row_name(row)
        if self._image is None:
            raise SampleError(f"{name}: it has no picture (data.image: null)", "empty")
        try:
            cell = self._rows.picture(row)
        except SampleError as error:
            raise SampleError(f"{name}: {error}", error.fault) from None
        data = cell.get("bytes") if isinstance(cell, dict) else cell
        if not isinstance(data, bytes | bytearray | memoryview):
            given = cell.get("path") if isinstance(cell, dict) else cell
            if given is None:
                raise SampleError(f"{name}: it has no picture: {self._image} is null", "empty")
            raise SampleError(
                f"{name}: {self._image} is {str(given)[:80]!r}; allowed: encoded bytes "
                "(paths and addresses are not followed)",
                "empty",
            )
        return bytes(data)

    def stored_files(self) -> list[Path]:
        return self._rows.stored_files()

    def _sources(self) -> Sequence[object] | None:
        return self._rows.sources()

    def _label_values(self) -> Sequence[Any] | LabelCodes | None:
        return self._rows.column(self.label_field or "")

    def _field_names(self) -> set[str]:
        return set(self._rows.columns)

    def _same_pictures(self) -> np.ndarray | None:
        section = self.section
        if self._image is None or section.join == "none":
            return None
        if section.picture_id is not None:
            return first_rows(self._picture_ids())
        same = self._rows.same_pictures(section.join == "auto")
        if isinstance(same, str):
            self.said.append(same)
            return None
        return same


def open_table(
    section: TableData,
    split: str,
    key: str,
    classes: Sequence[str] | None = None,
    learn: Learn | None = None,
) -> Table:
    """Open a split of a table: files, a folder of ``datasets``, or a dataset on the Hub.

    Raises:
        RecipeError: a path matches nothing, or a revision is given twice.
        DataError, MissingExtraError: see ``Table``, ``ParquetRows``, ``PlainRows`` and
            ``open_rows``.
    """
    given = getattr(section, split)
    if isinstance(given, str) and is_hub_id(given):
        repo, revision, wanted = split_hub_id(given)
        if revision is not None and section.revision not in (None, revision):
            raise RecipeError(
                f"data.revision: {section.revision!r}; {key} has {revision!r}; give one of them"
            )
        rows = _open_dataset(section, repo, key, split, wanted, revision)
        return Table(section, rows, classes, learn)
    paths = expand_paths(given, key)
    folders = [path for path in paths if path.is_dir()]
    if folders and len(paths) > 1:
        raise RecipeError(f"{key}: {str(folders[0])!r}: a folder among paths; allowed: it alone")
    if folders:
        rows = _open_dataset(section, str(folders[0]), key, split, None, None)
        return Table(section, rows, classes, learn)
    return Table(section, _open_files(section, paths, key), classes, learn)


def _open_files(section: TableData, paths: Sequence[Path], key: str) -> Rows:
    from ptft.data.parquet.rows import ParquetRows
    from ptft.data.sources.plain_rows import READ
    from ptft.data.sources.plain_table import PlainRows

    plain = [path for path in paths if path.suffix.lower() in READ]
    if plain and len(plain) < len(paths):
        other = next(path for path in paths if path not in plain)
        raise RecipeError(f"{key}: {plain[0].name} and {other.name}; allowed: files of one kind")
    if plain and section.image is not None:
        raise RecipeError(
            f"data.image: {section.image!r} with {plain[0].name}, a file that holds no picture; "
            "allowed: null, or data.kind: folder, whose metadata.csv names pictures"
        )
    if plain:
        return PlainRows(paths)

    for path in paths:
        if path.suffix.lower() not in _OTHER:
            continue
        raise RecipeError(
            f"{key}: {str(path)!r}: a table in a form that is not read; allowed: parquet, and of "
            f"texts without pictures {' and '.join(READ)}"
        )
    return ParquetRows(paths, section.window if section.streaming else None)


def _open_dataset(
    section: TableData, source: str, key: str, split: str, wanted: str | None, revision: str | None
) -> Rows:
    from ptft.data.sources.hub_rows import open_rows

    return open_rows(
        source,
        key=key,
        split=split,
        wanted=wanted,
        revision=revision or section.revision,
        streaming=section.streaming,
        window=section.window,
    )
