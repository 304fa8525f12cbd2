"""WebDataset tars as a sample set: any sample by number, in any process.

Samples are found by an index (``tar_index``) and read by ``os.pread``; what of the tar is in memory
is the operating system's business.
"""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from ptft.data.fields import FieldSet
from ptft.data.hashing import file_state
from ptft.data.index_file import read_index
from ptft.data.tar_index import IMAGE_EXTENSIONS, index_tar
from ptft.errors import SampleError
from ptft.recipe.data import ShardsData

__all__ = ["Shards"]

_OPEN = 64  # files held open at once; a process may often have no more than 1,024


class Shards(FieldSet):
    """The samples of tars, shard after shard.

    Args:
        section: captions, label and classes.
        paths: of the tars.
        classes: names to number the labels by, where the section has none.

    Raises:
        DataError: a tar is broken (file and offset are named), the index beside it is of another,
            or a label is of no class.
    """

    def __init__(
        self, section: ShardsData, paths: Sequence[Path], classes: Sequence[str] | None = None
    ) -> None:
        self._tars = [read_index(path) or index_tar(path) for path in paths]
        self._firsts = np.cumsum([0, *(len(tar) for tar in self._tars)])
        self._paths = list(paths)
        self._files = _Files(paths)
        above = Path(os.path.commonpath([path.absolute().parent for path in paths]))
        self._names = [path.absolute().relative_to(above).as_posix() for path in paths]
        with_cls = any("cls" in tar.extensions for tar in self._tars)
        super().__init__(section, label="cls" if with_cls else None)
        wanted = self.templates.fields | {self.label_field} - {None}
        # txt is looked at even when unused, so that an error can list it
        self._texts = {"txt", "cls", *wanted} - {"json", *IMAGE_EXTENSIONS}
        self._resolve_classes(classes)

    def __len__(self) -> int:
        return int(self._firsts[-1])

    def name(self, index: int) -> str:
        shard, within = self._find(index)
        tar = self._tars[shard]
        return f"{self._names[shard]}/{tar.keys[within]}"

    def _find(self, index: int) -> tuple[int, int]:
        if not 0 <= index < len(self):
            raise IndexError(f"there are {len(self)} samples; there is no number {index}")
        shard = int(np.searchsorted(self._firsts, index, side="right")) - 1
        return shard, index - int(self._firsts[shard])

    def _read_fields(self, index: int) -> Mapping[str, Any]:
        shard, within = self._find(index)
        members = self._tars[shard].members(within)
        fields: dict[str, Any] = {}
        for extension, place in members.items():
            if extension in self._texts:
                fields[extension] = self._text(index, shard, extension, place)
        if "json" in members:
            text = self._text(index, shard, "json", members["json"])
            try:
                values = json.loads(text)
            except ValueError as error:
                raise SampleError(f"{self.name(index)}: json: {error}") from None
            if not isinstance(values, dict):
                raise SampleError(
                    f"{self.name(index)}: json: {type(values).__name__}; allowed: an object"
                )
            fields = {**values, **fields}
        return fields

    def _text(self, index: int, shard: int, extension: str, place: tuple[int, int]) -> str:
        try:
            return self._files.read(shard, *place).decode("utf-8")
        except UnicodeDecodeError as error:
            raise SampleError(f"{self.name(index)}: {extension}: not UTF-8: {error}") from None

    def read_picture(self, index: int) -> bytes:
        shard, within = self._find(index)
        members = self._tars[shard].members(within)
        for extension in IMAGE_EXTENSIONS:
            if extension in members:
                return self._files.read(shard, *members[extension])
        raise SampleError(
            f"{self.name(index)}: no picture; its files: {', '.join(sorted(members))}", "empty"
        )

    def files(self, index: int) -> dict[str, bytes]:
        """The sample's own files as they are, whatever they hold, but for its pictures."""
        shard, within = self._find(index)
        return {
            extension: self._files.read(shard, *place)
            for extension, place in self._tars[shard].members(within).items()
            if extension not in IMAGE_EXTENSIONS
        }

    def packed_section(self, **paths: str) -> ShardsData:
        values = self.section.model_dump(exclude={"train", "val", "test"})
        return ShardsData(**{**values, **paths})

    def _sources(self) -> list[object]:
        return [file_state(*pair) for pair in zip(self._paths, self._names, strict=True)]

    def _label_values(self) -> Sequence[Any]:
        return [self._label_value(index) for index in range(len(self))]

    def _label_value(self, index: int) -> Any:
        """The label of a sample, None where it has none or its fields are broken (reading the
        sample then says so)."""
        label = self.label_field or ""
        shard, within = self._find(index)
        place = self._tars[shard].members(within).get(label)
        try:
            if place is not None and label not in ("json", *IMAGE_EXTENSIONS):
                return self._text(index, shard, label, place)
            return self._read_fields(index).get(label)
        except SampleError:
            return None


class _Files:
    """Tars opened when they are first read, the least recently read closed beyond ``_OPEN``."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self._paths = list(paths)
        self._open: dict[int, int] = {}

    def read(self, number: int, offset: int, size: int) -> bytes:
        """Exactly ``size`` bytes. Raises SampleError where the file no longer has them."""
        path = self._paths[number]
        try:
            with self._file(number) as file:
                pieces, left = [], size
                while left:
                    piece = os.pread(file, left, offset + size - left)
                    if not piece:
                        raise SampleError(
                            f"{path}: offset {offset}: it became shorter", "unreadable"
                        )
                    pieces.append(piece)
                    left -= len(piece)
        except OSError as error:
            raise SampleError(
                f"{path}: offset {offset}: {error.strerror or error}", "unreadable"
            ) from None
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    @contextmanager
    def _file(self, number: int) -> Iterator[int]:
        file = self._open.pop(number, None)
        if file is None:
            file = os.open(self._paths[number], os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
        self._open[number] = file  # last in the dict: most recently read
        while len(self._open) > _OPEN:
            os.close(self._open.pop(next(iter(self._open))))
        yield file

    def __reduce__(self) -> tuple[type["_Files"], tuple[list[Path]]]:
        return _Files, (self._paths,)  # a process opens its own

    def __del__(self) -> None:
        for file in self._open.values():
            os.close(file)
        self._open = {}
