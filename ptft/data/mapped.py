"""Large arrays in files of a cache, so that processes of one machine share them.

What is pickled for a process that reads is a path and a few numbers; the bytes are in memory once,
in the system's page cache, which lets them go when memory is wanted. A file is named by what it
holds. Where the cache cannot be used (a full disk, say), arrays are pickled as they are.
"""

import hashlib
import io
import mmap
import os
import re
import weakref
from functools import cache
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from typing import Any

import numpy as np
import platformdirs

from ptft.data.cache_folder import CacheFolder
from ptft.errors import DataError
from ptft.files.own import open_own

__all__ = ["LIMIT", "map_file", "pickle_mapped"]

LIMIT = 16 << 30
"""Bytes that a cache of columns keeps, see ``CacheFolder.make_room``."""

_LEAST = 1 << 20  # bytes of an array; a smaller one is pickled as it is
_FILE = re.compile(r"[0-9a-f]{32}\.bin")
_NAMES = re.compile(rf"{_FILE.pattern}|room\.lock|\.[0-9a-f]{32}\.bin\.\d+\.partial")
_Place = tuple[Path, str, tuple[int, ...]]


def pickle_mapped(value: Any) -> bytes:
    """Pickle for another process of this machine, large arrays by the files that hold them."""
    stream = io.BytesIO()
    _Pickler(stream).dump(value)
    return stream.getvalue()


class _Pickler(ForkingPickler):
    def reducer_override(self, value: Any) -> Any:
        if type(value) is np.ndarray and value.nbytes >= _LEAST and not value.dtype.hasobject:
            place = _place_of(value)
            if place is not None:
                return _mapped, place
        return NotImplemented


_placed: dict[int, tuple[weakref.ref[np.ndarray], _Place]] = {}


def _place_of(array: np.ndarray) -> _Place | None:
    """The file that holds an array, written if there is none; None where none can be."""
    known = _placed.get(id(array))
    if known is not None and known[0]() is array and _touch(known[1][0]):
        return known[1]
    rows = np.ascontiguousarray(array)
    digest = hashlib.blake2b(f"{array.dtype.str} {array.shape}".encode(), digest_size=16)
    digest.update(rows.data if rows.size else b"")
    try:
        path = _write(f"{digest.hexdigest()}.bin", rows)
    except (DataError, OSError):
        return None
    place = path, array.dtype.str, array.shape
    number = id(array)
    _placed[number] = weakref.ref(array, lambda _: _placed.pop(number, None)), place
    return place


def _touch(path: Path) -> bool:
    """Mark a file as just used, so that it stays; False where it is gone."""
    try:
        os.utime(path, follow_symlinks=False)
    except OSError:
        return False
    return True


@cache
def _columns(folder: Path) -> CacheFolder:
    return CacheFolder(folder, kind="columns", names=_NAMES, key="XDG_CACHE_HOME")


def _write(name: str, rows: np.ndarray) -> Path:
    columns = _columns(platformdirs.user_cache_path("ptft") / "columns")
    columns.ready()
    path = columns.path / name
    if columns.holds(name) is not None and _touch(path):
        return path
    partial = columns.path / f".{name}.{os.getpid()}.partial"
    partial.unlink(missing_ok=True)
    try:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
        with os.fdopen(open_own(partial, flags), "wb") as stream:
            stream.write(rows.data)
        with columns.lock("room.lock"):
            columns.make_room(rows.nbytes, LIMIT, _FILE)
            partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    return path


def map_file(file: int) -> np.ndarray:
    """The bytes of an open file, uint8, mapped to be read; the descriptor may be closed."""
    if os.fstat(file).st_size == 0:
        return np.empty(0, np.uint8)
    return np.frombuffer(mmap.mmap(file, 0, access=mmap.ACCESS_READ), np.uint8)


def _mapped(path: Path, kind: str, shape: tuple[int, ...]) -> np.ndarray:
    file = open_own(path, os.O_RDONLY)
    try:
        return map_file(file).view(kind).reshape(shape)
    finally:
        os.close(file)
