"""The index of a tar in a file beside it: ``shard.tar`` has ``shard.tar.index``.

With it a shard that lies elsewhere need not be fetched to know what it holds. It is a safetensors
file: the header says how many samples there are, of which tar (its size) and with which extensions,
and can be read alone; the arrays are those of ``TarIndex``. Nothing is pickled, and the same tar
always gives the same bytes.
"""

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from ptft.artifact import write_atomic
from ptft.data.kept import PackedTexts
from ptft.data.mapped import map_file
from ptft.data.tar.index import FileState, TarIndex, index_tar, probe_tar
from ptft.errors import DataError
from ptft.files.arrays import NUMPY
from ptft.files.bounds import shown
from ptft.files.own import open_plain

__all__ = [
    "INDEX_SUFFIX",
    "IndexHead",
    "check_index",
    "index_path",
    "load_index",
    "read_head",
    "read_index",
    "save_index",
    "write_index",
]

INDEX_SUFFIX = ".index"
_BLOCK = 512  # bytes of a header, which lies before each file
_FORMAT = "ptft-tar-index-1"
_KEY = "ptft"  # one key: safetensors writes several in any order
_AGAIN = "`ptft data index` writes it again"


@dataclass(frozen=True)
class IndexHead:
    """What the header of an index file says.

    Attributes:
        count: samples.
        size: of the tar in bytes.
        probe: digest of three of its headers, see ``probe_tar``.
        extensions: of its files, lower case.
        labelled: the index holds the text of every ``cls``.
    """

    count: int
    size: int
    probe: str
    extensions: tuple[str, ...]
    labelled: bool


def index_path(tar: Path) -> Path:
    """Where the index of a tar lies."""
    return tar.with_name(tar.name + INDEX_SUFFIX)


def write_index(tar: Path) -> TarIndex:
    """Index a tar and write the file beside it, atomically.

    Raises:
        DataError: the tar is broken, see ``index_tar``; or the file cannot be written.
    """
    index = index_tar(tar, whole=True)
    save_index(index, index_path(tar))
    return index


def read_index(tar: Path) -> TarIndex | None:
    """The index that lies beside a tar; None where there is none.

    Raises:
        DataError: it is no index, or one of other bytes than the tar's.
    """
    path = index_path(tar)
    if not path.is_file():
        return None
    index = load_index(path, tar)
    check_index(index, tar, path)
    return index


def save_index(index: TarIndex, path: Path) -> None:
    """Write an index to any place, atomically.

    Raises:
        DataError: it cannot be written.
    """
    tensors = {
        "starts": index.starts,
        "kinds": index.kinds,
        "offsets": index.offsets,
        "sizes": index.sizes,
        **_tensors("keys", index.keys),
    }
    if index.labels is not None:
        tensors |= _tensors("labels", index.labels)
    if index.digests is not None:
        tensors["digests"] = index.digests
    head = {
        "format": _FORMAT,
        "count": len(index),
        "size": index.size,
        "probe": index.probe,
        "extensions": index.extensions,
    }
    try:
        write_atomic(path, save(tensors, metadata={_KEY: json.dumps(head)}))
    except OSError as error:
        raise DataError(f"{path}: cannot be written: {error.strerror or error}") from None


def read_head(path: Path) -> IndexHead:
    """What an index file says in its header; the rest is not read. Raises DataError."""
    with _opened(path) as file:
        return _head(path, file)


def load_index(path: Path, tar: Path, state: FileState | None = None) -> TarIndex:
    """The whole index, mapped; ``tar`` is the path that it gets.

    Args:
        state: of the file when it was loaded and checked before, which need not be done again.

    Raises:
        DataError: the file is no index, its parts do not fit each other, or it is not the one that
            was checked.
    """
    with _opened(path) as file:
        head = _head(path, file)
    try:
        arrays, found = _map_arrays(path)
        index = TarIndex(
            tar,
            PackedTexts(arrays["keys.text"], arrays["keys.ends"]),
            list(head.extensions),
            arrays["starts"],
            arrays["kinds"],
            arrays["offsets"],
            arrays["sizes"],
            head.size,
            head.probe,
            PackedTexts(arrays["labels.text"], arrays["labels.ends"])
            if "labels.text" in arrays
            else None,
            arrays.get("digests"),
        )
        if state is not None and found != state:
            raise DataError(f"{path}: changed since it was opened")
        if state is None:
            index.keys.check("keys")
            if index.labels is not None:
                index.labels.check("labels")
    except (KeyError, ValueError, TypeError, OSError) as error:
        raise DataError(f"{path}: broken ({error}); {_AGAIN}") from None
    index.file = (path, found)
    if state is None and not _fits(index, head):
        raise DataError(f"{path}: broken (its parts do not fit each other); {_AGAIN}")
    return index


def _map_arrays(path: Path) -> tuple[dict[str, np.ndarray], FileState]:
    """The arrays of a safetensors file whose header was checked, and the state of the file."""
    with open_plain(path) as stream:
        data, about = map_file(stream.fileno()), os.fstat(stream.fileno())
    length = int.from_bytes(data[:8].tobytes(), "little")
    header: dict[str, Any] = json.loads(data[8 : 8 + length].tobytes())
    arrays = {}
    for name, entry in header.items():
        if name != "__metadata__":
            start, end = (8 + length + offset for offset in entry["data_offsets"])
            if not 0 <= start <= end <= len(data):
                raise ValueError(f"{name} lies outside the file")
            arrays[name] = data[start:end].view(NUMPY[entry["dtype"]]).reshape(entry["shape"])
    return arrays, (about.st_size, about.st_mtime_ns, about.st_ino)


def check_index(index: TarIndex, tar: Path, path: Path) -> None:
    """Hold an index against the bytes of its tar: the size, and the headers of three files.

    Raises:
        DataError: it belongs to other bytes.
    """
    size = tar.stat().st_size
    if size != index.size:
        raise DataError(f"{path}: of a tar of {index.size} bytes; {tar.name} has {size}; {_AGAIN}")
    if probe_tar(tar, index.offsets, index.sizes) != index.probe:
        raise DataError(f"{path}: of another tar than {tar.name}; {_AGAIN}")


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    try:
        with safe_open(path, framework="numpy") as file:
            yield file
    except (SafetensorError, OSError) as error:
        raise DataError(f"{path}: no index of a tar ({error}); {_AGAIN}") from None


def _head(path: Path, file: Any) -> IndexHead:
    try:
        values = json.loads((file.metadata() or {}).get(_KEY, "{}"))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: broken ({error}); {_AGAIN}") from None
    if not isinstance(values, dict):
        raise DataError(f"{path}: broken (its header is no object); {_AGAIN}")
    if values.get("format") != _FORMAT:
        raise DataError(
            f"{path}: format {values.get('format')!r}; this ptft reads {_FORMAT!r}; {_AGAIN}"
        )
    for key, is_right in _HEAD.items():
        if not is_right(values.get(key)):
            raise DataError(f"{path}: broken ({key}: {shown(values.get(key))}); {_AGAIN}")
    return IndexHead(
        values["count"],
        values["size"],
        values["probe"],
        tuple(values["extensions"]),
        "labels.text" in file.keys(),  # noqa: SIM118 - safetensors' file is no mapping
    )


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value < 2**62


def _are_extensions(value: Any) -> bool:
    return (
        isinstance(value, list)
        and len(value) <= 1 << 16
        and all(isinstance(entry, str) for entry in value)
    )


_HEAD: dict[str, Callable[[Any], bool]] = {
    "count": _is_count,
    "size": _is_count,
    "probe": lambda value: isinstance(value, str),
    "extensions": _are_extensions,
}
"""Key of a header -> whether a value of it can be."""


def _fits(index: TarIndex, head: IndexHead) -> bool:
    """Whether the parts of an index fit each other and the tar's size."""
    members = len(index.kinds)
    return (
        _is_row(index.kinds, members, np.uint16)
        and len(index.keys) == head.count > 0
        and _is_row(index.starts, head.count + 1, np.int64)
        and _is_row(index.offsets, members, np.int64)
        and _is_row(index.sizes, members, np.int64)
        and int(index.starts[0]) == 0
        and int(index.starts[-1]) == members
        and bool((index.starts[1:] > index.starts[:-1]).all())
        and int(index.kinds.max()) < len(index.extensions)
        # by differences, since a sum of two such numbers may come out below 0
        and bool(((index.offsets >= _BLOCK) & (index.offsets <= head.size)).all())
        and bool(((index.sizes >= 0) & (index.sizes <= head.size - index.offsets)).all())
        and (index.labels is None or len(index.labels) == head.count)
        and (
            index.digests is None
            or (index.digests.shape == (head.count, 16) and index.digests.dtype == np.uint8)
        )
    )


def _is_row(array: np.ndarray, length: int, kind: type) -> bool:
    return array.shape == (length,) and array.dtype == kind


def _tensors(name: str, texts: PackedTexts) -> dict[str, np.ndarray]:
    """Texts as UTF-8 in one row, and where each ends."""
    return {f"{name}.text": texts.text, f"{name}.ends": texts.ends}
