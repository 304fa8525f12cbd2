"""The index of a tar in a file beside it: ``shard.tar`` has ``shard.tar.index``.

With it a shard that lies elsewhere need not be fetched to know what it holds. It is a safetensors
file: the header says how many samples there are, of which tar (its size) and with which extensions,
and can be read alone; the arrays are those of ``TarIndex``. Nothing is pickled, and the same tar
always gives the same bytes.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from ptft.artifact import write_atomic
from ptft.data.tar.index import TarIndex, index_tar, probe_tar
from ptft.errors import DataError
from ptft.files.bounds import shown

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
        **_pack("keys", index.keys),
    }
    if index.labels is not None:
        tensors |= _pack("labels", [label or "" for label in index.labels])
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


def load_index(path: Path, tar: Path) -> TarIndex:
    """The whole index; ``tar`` is the path that it gets.

    Raises:
        DataError: the file is no index, or its parts do not fit each other.
    """
    with _opened(path) as file:
        head = _head(path, file)
        names = set(file.keys())
        try:
            arrays = {name: file.get_tensor(name) for name in names}
            index = TarIndex(
                tar,
                _unpack("keys", arrays),
                list(head.extensions),
                arrays["starts"],
                arrays["kinds"],
                arrays["offsets"],
                arrays["sizes"],
                head.size,
                head.probe,
                [label or None for label in _unpack("labels", arrays)]
                if "labels.text" in names
                else None,
                arrays.get("digests"),
            )
        except (KeyError, ValueError, TypeError, SafetensorError) as error:
            raise DataError(f"{path}: broken ({error}); {_AGAIN}") from None
    if not _fits(index, head):
        raise DataError(f"{path}: broken (its parts do not fit each other); {_AGAIN}")
    return index


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


def _pack(name: str, texts: Sequence[str]) -> dict[str, np.ndarray]:
    """Texts as UTF-8 in one row, and where each ends."""
    pieces = [text.encode("utf-8") for text in texts]
    ends = np.cumsum([len(piece) for piece in pieces], dtype=np.int64)
    return {
        f"{name}.text": np.frombuffer(b"".join(pieces), np.uint8),
        f"{name}.ends": ends,
    }


def _unpack(name: str, arrays: dict[str, np.ndarray]) -> list[str]:
    text, found = arrays[f"{name}.text"], arrays[f"{name}.ends"]
    if text.dtype != np.uint8 or text.ndim != 1 or not _is_row(found, len(found), np.int64):
        raise ValueError(f"{name} are no texts")
    row, ends = text.tobytes(), found.tolist()
    if any(b < a for a, b in zip([0, *ends], [*ends, len(row)], strict=True)):
        raise ValueError(f"{name} end before they begin")
    return [row[a:b].decode("utf-8") for a, b in zip([0, *ends], ends, strict=False)]
