"""Pictures in a folder: one folder a class, or a metadata table that names them."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from ptft.data.fields import FieldSet
from ptft.data.hashing import file_state
from ptft.data.plain_rows import READ
from ptft.data.tar_index import IMAGE_EXTENSIONS
from ptft.errors import DataError, SampleError
from ptft.recipe.data import FolderData

__all__ = ["Folder"]

_TABLES = ("metadata.csv", "metadata.jsonl", "metadata.parquet")
_FILE = "file_name"  # the column that names a picture, as Hugging Face's ImageFolder has it


class Folder(FieldSet):
    """Pictures under a folder, in the order of its table or of their names.

    Without a table the field ``label`` of a picture is the folder at the top that it lies in.

    Args:
        section: captions, label and classes.
        folder: holds ``metadata.csv``, ``.jsonl`` or ``.parquet``, or one folder a class.
        classes: names to number the labels by, where the section has none.

    Raises:
        DataError: no picture, more than one table, a table without ``file_name`` or with a path
            that leaves the folder, or a label that is of no class.
    """

    def __init__(
        self, section: FolderData, folder: Path, classes: Sequence[str] | None = None
    ) -> None:
        if not folder.is_dir():
            raise DataError(f"{folder}: not a folder")
        self._folder = folder
        tables = [folder / name for name in _TABLES if (folder / name).is_file()]
        if len(tables) > 1:
            names = " and ".join(table.name for table in tables)
            raise DataError(f"{folder}: {names}; allowed: one table")
        self._rows = _read_table(tables[0]) if tables else _list_classes(folder)
        self._checked = bool(tables)  # what a table names is not to be trusted
        super().__init__(section, label=None if tables else "label")
        self._resolve_classes(classes)

    def __len__(self) -> int:
        return len(self._rows)

    def name(self, index: int) -> str:
        return self._rows[index][_FILE]

    def _read_fields(self, index: int) -> Mapping[str, Any]:
        return {key: value for key, value in self._rows[index].items() if key != _FILE}

    def read_picture(self, index: int) -> bytes:
        name = self.name(index)
        path = self._folder / name
        if self._checked and not path.resolve().is_relative_to(self._folder.resolve()):
            raise SampleError(f"{name}: it links to a place outside {self._folder}", "unreadable")
        try:
            return path.read_bytes()
        except OSError as error:
            raise SampleError(f"{name}: {error.strerror or error}", "unreadable") from None

    def _sources(self) -> Iterator[object]:
        for row in self._rows:
            yield file_state(self._folder / row[_FILE], row[_FILE]), row

    def _label_values(self) -> Sequence[Any]:
        return [row.get(self.label_field or "") for row in self._rows]


def _list_classes(folder: Path) -> list[dict[str, Any]]:
    """One row a picture of the ImageFolder layout, sorted by path."""
    rows = []
    for path in sorted(folder.glob("*/**/*")):
        if path.suffix.lower().lstrip(".") in IMAGE_EXTENSIONS and path.is_file():
            inside = path.relative_to(folder)
            rows.append({_FILE: inside.as_posix(), "label": inside.parts[0]})
    if not rows:
        raise DataError(
            f"{folder}: no pictures ({', '.join(IMAGE_EXTENSIONS)}); allowed: one folder a class, "
            f"or pictures beside one of {', '.join(_TABLES)}"
        )
    return rows


def _read_table(path: Path) -> list[dict[str, Any]]:
    read = {**READ, ".parquet": _read_parquet}
    rows = read[path.suffix](path)
    if not rows:
        raise DataError(f"{path}: no rows")
    for number, row in enumerate(rows, start=1):
        name = row.get(_FILE)
        if not isinstance(name, str) or not name.strip():
            there = ", ".join(str(key) for key in row) or "none"
            raise DataError(f"{path}: row {number}: no {_FILE}; columns: {there}")
        if "\0" in name or not _stays_inside(name):
            raise DataError(
                f"{path}: row {number}: {_FILE} {name!r} leaves the folder; "
                "allowed: a path inside it"
            )
    return rows


def _stays_inside(name: str) -> bool:
    """Whether a relative path cannot leave its folder, whatever lies there (links apart)."""
    path = PurePosixPath(name.replace("\\", "/"))
    drive = len(name) > 1 and name[1] == ":"
    return not path.is_absolute() and not drive and ".." not in path.parts


def _read_parquet(path: Path) -> list[dict[str, Any]]:
    import pyarrow
    import pyarrow.parquet

    try:
        return pyarrow.parquet.read_table(path, use_threads=False).to_pylist()
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(f"{path}: {error}") from None
