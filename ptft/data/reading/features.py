"""Rows of numbers of a set's samples, computed once and kept in a folder.

The folder holds ``rows.npy`` (float32, N x F, read by memory map), ``states.npy`` (one byte a row:
missing, there, unreadable), ``reasons.jsonl`` (of the unreadable) and ``about.json``. Rows come in
blocks; a block's rows are on the disk before its states say so, so that a kill costs one block.
"""

import contextlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from filelock import lock_descriptor
from numpy.lib.format import open_memmap

from ptft.artifact import read_json, write_json
from ptft.errors import DataError, Fault, SampleError
from ptft.files.own import check_own_tree, open_own

__all__ = ["FeatureFile", "TextFeatures"]

_ROWS, _STATES, _IDS = "rows.npy", "states.npy", "ids.npy"
_REASONS, _ABOUT = "reasons.jsonl", "about.json"
_MISSING, _THERE, _UNREADABLE = 0, 1, 2


class FeatureFile:
    """The rows of one folder. Any number of this user's processes may read and fill it.

    Args:
        folder: as :meth:`create` made it.

    Raises:
        DataError: a file of it is damaged, is a link, or is another user's.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        try:
            check_own_tree(folder)
        except OSError as error:
            raise DataError(
                f"{error.filename or folder}: {error.strerror}; features are read from this "
                "user's own files; run.cache names another folder"
            ) from None
        try:
            self.rows: np.ndarray = np.load(folder / _ROWS, mmap_mode="r")
            self._states: np.ndarray = np.load(folder / _STATES, mmap_mode="r")
        except (OSError, ValueError, EOFError) as error:
            raise DataError(
                f"{folder}: damaged features ({error}); delete the folder, it is made again"
            ) from None
        self.block = _block(folder)
        if self.rows.ndim != 2 or self.rows.dtype != np.float32 or self._states.dtype != np.uint8:
            raise DataError(f"{folder}: damaged features; delete the folder, it is made again")
        self._reasons: dict[int, tuple[str, Fault]] | None = None

    @classmethod
    def create(
        cls,
        folder: Path,
        *,
        count: int,
        width: int,
        block: int,
        about: Mapping[str, Any],
        ids: np.ndarray | None = None,
    ) -> "FeatureFile":
        """A folder of ``count`` missing rows of ``width`` numbers; the one there, if there is one.

        Args:
            block: rows that are computed together.
            about: what the rows are, for people.
            ids: of the rows, int64 ascending, where they are looked up by a number of their own.

        Raises:
            DataError: the disk has no room for them, or the folder cannot be made.
        """
        if folder.is_dir():
            return cls(folder)
        try:
            return cls._create(folder, count, width, block, about, ids)
        except OSError as error:
            raise DataError(f"{folder}: {error.strerror or error}") from None

    @classmethod
    def _create(
        cls,
        folder: Path,
        count: int,
        width: int,
        block: int,
        about: Mapping[str, Any],
        ids: np.ndarray | None,
    ) -> "FeatureFile":
        folder.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        needed, free = count * width * 4, cls.free(folder.parent)
        if needed > free:
            raise DataError(
                f"{folder.parent}: features need {needed / 1e9:.1f} GB and {free / 1e9:.1f} GB "
                "are free; run.cache names another folder, run.features: off does without"
            )
        partial = folder.with_name(f".{folder.name}.{os.getpid()}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(mode=0o700)
        open_memmap(partial / _ROWS, mode="w+", dtype=np.float32, shape=(count, width))
        open_memmap(partial / _STATES, mode="w+", dtype=np.uint8, shape=(count,))
        write_json(partial / _ABOUT, {"block": block, **about})
        if ids is not None:
            np.save(partial / _IDS, ids)
        try:
            partial.rename(folder)
        except OSError:  # another process was first
            shutil.rmtree(partial)
        return cls(folder)

    @staticmethod
    def free(folder: Path) -> int:
        """Bytes that are free where a folder is, or would be."""
        while not folder.exists():
            folder = folder.parent
        return shutil.disk_usage(folder).free

    def __reduce__(self) -> tuple[type["FeatureFile"], tuple[Path]]:
        return FeatureFile, (self.folder,)  # a process maps its own

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def width(self) -> int:
        """Numbers of a row, F."""
        return int(self.rows.shape[1])

    @property
    def size(self) -> str:
        """Rows and gigabytes (10^9 bytes), for people."""
        return f"{len(self):,} x {self.width}, {self.rows.size * 4 / 1e9:.2g} GB"

    def missing(self, part: int = 0, parts: int = 1) -> list[range]:
        """Blocks that are not there yet, in their order: those that fall to one of ``parts``."""
        absent = np.unique(np.flatnonzero(np.asarray(self._states) == _MISSING) // self.block)
        starts = (absent[absent % parts == part] * self.block).tolist()
        return [range(start, min(start + self.block, len(self))) for start in starts]

    def row(self, index: int) -> np.ndarray:
        """float32 (F,).

        Raises:
            SampleError: the sample could not be read when its row was to be computed.
        """
        state = self._states[index]
        if state == _UNREADABLE:
            raise self._error(index)
        assert state == _THERE, f"row {index} is missing"
        return self.rows[index]

    def write(self, block: range, rows: np.ndarray, unreadable: Mapping[int, SampleError]) -> None:
        """Put a block on the disk.

        Args:
            block: of sample numbers.
            rows: float32 (rows of the block that could be read, F), in their order.
            unreadable: number -> what is wrong with it, of the block's other samples.

        Raises:
            DataError: the disk is full, or has gone.
        """
        there = [index for index in block if index not in unreadable]
        assert rows.shape == (len(there), self.width) and rows.dtype == np.float32
        states = np.full(len(block), _THERE, np.uint8)
        whole = np.zeros((len(block), self.width), np.float32)
        for place, index in enumerate(block):
            if index in unreadable:
                states[place] = _UNREADABLE
        whole[states == _THERE] = rows
        try:
            if unreadable:
                lines = [
                    json.dumps({"index": index, "reason": str(error), "fault": error.fault})
                    for index, error in unreadable.items()
                ]
                file = open_own(self.folder / _REASONS, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
                with os.fdopen(file, "a", encoding="utf-8") as stream:
                    stream.write("".join(f"{line}\n" for line in lines))
                self._reasons = None
            # written, not mapped: a full disk is then an error and not the end of the process
            _write_at(self.folder / _ROWS, self.rows, block.start * self.width, whole)
            _write_at(self.folder / _STATES, self._states, block.start, states)
        except OSError as error:
            raise DataError(f"{self.folder}: {error.strerror or error}") from None

    @contextlib.contextmanager
    def lock(self, part: int, parts: int) -> Iterator[None]:
        """Held by the one process that fills a part; others wait. A killed one lets go."""
        try:
            file = open_own(self.folder / f"lock-{part}-of-{parts}", os.O_RDWR | os.O_CREAT)
        except OSError as error:
            raise DataError(f"{error.filename}: {error.strerror or error}") from None
        try:
            lock_descriptor(file)
            yield
        finally:
            os.close(file)

    def _error(self, index: int) -> SampleError:
        if self._reasons is None:
            path = self.folder / _REASONS
            lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
            entries = [json.loads(line) for line in lines if line.endswith("}")]
            self._reasons = {entry["index"]: (entry["reason"], entry["fault"]) for entry in entries}
        return SampleError(*self._reasons.get(index, ("it could not be read", "unreadable")))


class TextFeatures:
    """Rows of texts by their 63-bit numbers (:func:`ptft.data.hashing.text_id`)."""

    def __init__(self, file: FeatureFile) -> None:
        self.file = file
        self._ids: np.ndarray = np.load(file.folder / _IDS, mmap_mode="r")

    def rows(self, ids: np.ndarray) -> np.ndarray:
        """float32 (B, F) of texts, int64 (B,)."""
        places = np.searchsorted(self._ids, ids)
        assert np.array_equal(self._ids[places], ids), "a text without features"
        return np.stack([self.file.row(int(place)) for place in places])


def _block(folder: Path) -> int:
    """Rows that are computed together. Raises DataError where the folder does not say it."""
    about = read_json(folder / _ABOUT)
    block = about.get("block") if isinstance(about, dict) else None
    if not isinstance(block, int) or block < 1:
        raise DataError(
            f"{folder / _ABOUT}: block {block!r}; allowed: a whole number from 1; delete the "
            "folder, it is made again"
        )
    return block


def _write_at(path: Path, mapped: np.ndarray, first: int, values: np.ndarray) -> None:
    """Overwrite a .npy file from its element ``first`` on, on the disk when this returns."""
    offset = path.stat().st_size - mapped.nbytes + first * mapped.itemsize
    data, done = values.tobytes(), 0
    file = open_own(path, os.O_WRONLY)
    try:
        while done < len(data):
            done += os.pwrite(file, data[done:], offset + done)
        os.fsync(file)
    finally:
        os.close(file)
