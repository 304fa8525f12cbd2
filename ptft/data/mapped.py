"""Large arrays in files of a cache, so that processes of one machine share them.

What is pickled for a process that reads is a path and a few numbers; the bytes are in memory once,
in the system's page cache, which lets them go when memory is wanted. A file is named by what it
holds. Where the cache cannot be used (a full disk, say), arrays are pickled as they are.
"""

import hashlib
import io
import math
import mmap
import os
import re
import weakref
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import cache
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import platformdirs

from ptft.data.cache_folder import CacheFolder
from ptft.errors import DataError
from ptft.files.own import open_own

__all__ = ["LIMIT", "map_file", "map_kept", "pickle_mapped", "shared", "write_kept"]

LIMIT = 16 << 30
"""Bytes that a cache of columns keeps, see ``CacheFolder.make_room``."""

_HOUR = 3600.0  # seconds
_LEAST = 1 << 20  # bytes of an array; a smaller one is pickled as it is
_FILE = re.compile(r"[0-9a-f]{32}\.bin")
_NAMES = re.compile(rf"{_FILE.pattern}|room\.lock|\.[0-9a-f]{32}\.bin\.\d+\.partial")
_Place = tuple[Path, str, tuple[int, ...], int]  # file, type, shape, and where in it, in bytes


def pickle_mapped(value: Any) -> bytes:
    """Pickle for another process of this machine, large arrays by the files that hold them."""
    stream = io.BytesIO()
    _Pickler(stream).dump(value)
    return stream.getvalue()


def shared(array: np.ndarray) -> np.ndarray:
    """The same array; a large one mapped from the file that other processes will map, where one can
    be kept."""
    if array.nbytes < _LEAST or array.dtype.hasobject:
        return array
    place = _place_of(array)
    return array if place is None else _mapped(*place)


class _Pickler(ForkingPickler):
    def reducer_override(self, value: Any) -> Any:
        if type(value) is np.ndarray and value.nbytes >= _LEAST and not value.dtype.hasobject:
            place = _place_of(value)
            if place is not None:
                return _mapped, place
        return NotImplemented


_placed: dict[int, tuple[weakref.ref[np.ndarray], _Place]] = {}
_files: dict[int, tuple[weakref.ref[np.ndarray], Path]] = {}  # of the cache, mapped as a whole


def _place_of(array: np.ndarray) -> _Place | None:
    """The file that holds an array, written if there is none; None where none can be."""
    known = _placed.get(id(array))
    if known is not None and known[0]() is array and _touch(known[1][0]):
        return known[1]
    within = _within(array)
    if within is not None and _touch(within[0]):
        return within
    rows = np.ascontiguousarray(array)
    digest = hashlib.blake2b(f"{array.dtype.str} {array.shape}".encode(), digest_size=16)
    digest.update(rows.data if rows.size else b"")
    name = f"{digest.hexdigest()}.bin"

    def write(files: Sequence[BinaryIO]) -> bool:
        return files[0].write(rows.data) == rows.nbytes

    if map_kept([name]) is None and write_kept([name], write) is None:
        return None
    path = platformdirs.user_cache_path("ptft") / "columns" / name
    place = path, array.dtype.str, array.shape, 0
    number = id(array)
    _placed[number] = weakref.ref(array, lambda _: _placed.pop(number, None)), place
    return place


def _within(array: np.ndarray) -> _Place | None:
    """Where an array lies that is a part of a file of the cache; None: it is none, or scattered."""
    whole = array
    while isinstance(whole.base, np.ndarray):
        whole = whole.base
    known = _files.get(id(whole))
    if known is None or known[0]() is not whole or not array.flags.c_contiguous:
        return None
    return known[1], array.dtype.str, array.shape, array.ctypes.data - whole.ctypes.data


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


def map_kept(names: Sequence[str]) -> list[np.ndarray] | None:
    """Files of the cache, uint8 each; None where one is not there."""
    columns = _columns(platformdirs.user_cache_path("ptft") / "columns")
    if not columns.path.is_dir():
        return None  # and none is made for who only looks
    try:
        columns.ready()
        if not all(columns.holds(name) and _touch(columns.path / name) for name in names):
            return None
        return [_mapped(columns.path / name, "u1", (-1,)) for name in names]
    except (DataError, OSError):
        return None


def write_kept(
    names: Sequence[str], write: Callable[[Sequence[BinaryIO]], bool]
) -> list[np.ndarray] | None:
    """Write files of the cache and map them.

    Args:
        names: of the files, 32 digits and ``.bin``.
        write: given the open files; False: nothing is to be kept.

    Returns:
        uint8 each; None where nothing was kept, or nothing can be.
    """
    columns = _columns(platformdirs.user_cache_path("ptft") / "columns")
    partials: list[Path] = []
    try:
        columns.ready()
        with ExitStack() as stack:
            files = []
            for name in names:
                partials.append(columns.path / f".{name}.{os.getpid()}.partial")
                partials[-1].unlink(missing_ok=True)
                flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
                files.append(stack.enter_context(os.fdopen(open_own(partials[-1], flags), "wb")))
            if not write(files):
                return None
        with columns.lock("room.lock"):
            size = sum(path.stat().st_size for path in partials)
            columns.make_room(size, LIMIT, _FILE, rest=_HOUR)
            for name, partial in zip(names, partials, strict=True):
                partial.replace(columns.path / name)
        return map_kept(names)
    except (DataError, OSError):
        return None
    finally:
        for partial in partials:
            partial.unlink(missing_ok=True)


def map_file(file: int) -> np.ndarray:
    """The bytes of an open file, uint8, mapped to be read; the descriptor may be closed."""
    if os.fstat(file).st_size == 0:
        return np.empty(0, np.uint8)
    return np.frombuffer(mmap.mmap(file, 0, access=mmap.ACCESS_READ), np.uint8)


def _mapped(path: Path, kind: str, shape: tuple[int, ...], offset: int = 0) -> np.ndarray:
    file = open_own(path, os.O_RDONLY)
    try:
        whole = map_file(file)
    finally:
        os.close(file)
    number = id(whole)
    _files[number] = weakref.ref(whole, lambda _: _files.pop(number, None)), path
    end = len(whole) if -1 in shape else offset + np.dtype(kind).itemsize * math.prod(shape)
    return whole[offset:end].view(kind).reshape(shape)
