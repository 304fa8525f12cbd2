"""What a large set holds, in few bytes: texts in one row, and arrays that were found when it was
opened, kept in the cache of columns: to open it again is to map them.

A list of Python strings takes some 60 bytes a text beyond its characters, in every process.

What is kept is named by what it was found of and by the state of that (sizes and times of files),
so that what changed is looked for anew. Nobody but this user writes there, and what cannot be read
there is made again.
"""

import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, overload

import numpy as np
import pyarrow

from ptft.data.hashing import digest_of
from ptft.data.mapped import map_kept, write_kept

__all__ = [
    "MANY",
    "REST",
    "Arrays",
    "PackedTexts",
    "PathState",
    "keep",
    "kept",
    "read_texts",
    "remembered",
    "settled",
    "state_of",
    "texts",
]

MANY = 1 << 16
"""Samples of a set from which on what was found is kept; a smaller one is soon looked at."""

Arrays = dict[str, np.ndarray]
"""By name."""

PathState = tuple[int, ...]
"""Of a file or folder: its device, number, size, and its times of change in ns."""

_FORMAT = "ptft-kept-1"
_ALIGN = 64  # bytes: no number of an array lies across two lines of a processor's cache
REST = 2.0  # seconds; of what was changed later a second change might show the same times

_AT_ONCE = 1 << 16  # texts that are in memory at once, of all that are gone through
_ERRORS = "surrogateescape"  # names of files may be no UTF-8


class PackedTexts(Sequence[str]):
    """Texts by number.

    Args:
        text: uint8, all of them as UTF-8, one after the other.
        ends: int64 (N,), where each ends in ``text``.
    """

    def __init__(self, text: np.ndarray, ends: np.ndarray) -> None:
        self.text = text
        self.ends = ends

    @classmethod
    def pack(cls, texts: Iterable[str]) -> "PackedTexts":
        """Pack texts."""
        pieces = [text.encode("utf-8", _ERRORS) for text in texts]
        ends = np.cumsum([len(piece) for piece in pieces], dtype=np.int64)
        return cls(np.frombuffer(b"".join(pieces), np.uint8), ends)

    def chosen(self, numbers: np.ndarray) -> "PackedTexts":
        """Some of the texts, in the order of their numbers."""
        return PackedTexts.pack(self[number] for number in numbers.tolist())

    def between(self, first: int, end: int) -> "PackedTexts":
        """Those with numbers from ``first`` on, below ``end``; nothing is copied but where they
        end."""
        start = int(self.ends[first - 1]) if first else 0
        ends = self.ends[first:end] - start
        return PackedTexts(self.text[start : start + int(ends[-1] if len(ends) else 0)], ends)

    def check(self, what: str) -> None:
        """Raises ValueError: the parts are no texts of UTF-8, or end before they begin."""
        text, ends = self.text, self.ends
        if text.dtype != np.uint8 or text.ndim != 1 or ends.dtype != np.int64 or ends.ndim != 1:
            raise ValueError(f"{what} are no texts")
        steps = np.diff(ends, prepend=0, append=len(text))
        if bool((steps < 0).any()):
            raise ValueError(f"{what} end before they begin")
        text.tobytes().decode("utf-8")
        inner = ends[ends < len(text)]
        if bool((text[inner] & 0xC0 == 0x80).any()):
            raise ValueError(f"{what} end within a character")

    def encode(self) -> tuple[list[str], np.ndarray]:
        """The distinct texts, in the order of their first, and of each text the number of its own
        among them: int32 (N,)."""
        found = self.arrow().dictionary_encode()
        distinct = [value.decode("utf-8", _ERRORS) for value in found.dictionary.to_pylist()]
        return distinct, found.indices.to_numpy()

    def arrow(self) -> pyarrow.LargeBinaryArray:
        """The same for Arrow, which reads the bytes where they are."""
        offsets = np.concatenate([np.zeros(1, np.int64), self.ends])
        buffers = [None, pyarrow.py_buffer(offsets), pyarrow.py_buffer(self.text)]
        kind = pyarrow.large_binary()
        return pyarrow.LargeBinaryArray.from_buffers(kind, len(self), buffers)

    def hashes(self) -> np.ndarray:
        """A number of each text, int64 (N,): equal texts alike, others apart but by a rare chance;
        in this process alone."""
        return np.fromiter(map(hash, self), np.int64, len(self))

    def __len__(self) -> int:
        return len(self.ends)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            return [self[number] for number in range(*index.indices(len(self)))]
        if index < 0:
            index += len(self)
        if not 0 <= index < len(self):
            raise IndexError(f"there are {len(self)} texts; there is no number {index}")
        start = int(self.ends[index - 1]) if index else 0
        return self.text[start : int(self.ends[index])].tobytes().decode("utf-8", _ERRORS)

    def __iter__(self) -> Iterator[str]:
        for first in range(0, len(self), _AT_ONCE):
            ends = self.ends[first : first + _AT_ONCE].tolist()
            start = int(self.ends[first - 1]) if first else 0
            row, place = self.text[start : ends[-1]].tobytes(), 0
            for end in ends:
                yield row[place : end - start].decode("utf-8", _ERRORS)
                place = end - start

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence) or len(self) != len(other):
            return NotImplemented if not isinstance(other, Sequence) else False
        return all(one == another for one, another in zip(self, other, strict=True))

    __hash__ = None  # type: ignore[assignment]


def kept(*about: object) -> Arrays | None:
    """Arrays that were kept of something, mapped; None where there are none.

    Args:
        about: what they are of, and its state.
    """
    files = map_kept([_name(about)])
    if files is None:
        return None
    try:
        length = int.from_bytes(files[0][:8].tobytes(), "little")
        header = json.loads(files[0][8 : 8 + length].tobytes())
        if header.pop("format") != _FORMAT:
            return None
        found = {}
        for name, (kind, shape, start, size) in header.items():
            found[name] = files[0][start : start + size].view(kind).reshape(shape)
        return found
    except (ValueError, KeyError, TypeError, AttributeError):
        return None  # cut by a full disk, say


def keep(arrays: Mapping[str, np.ndarray], *about: object) -> Arrays:
    """Keep arrays of something; the same arrays, mapped, or as they are where none can be kept."""
    rows = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    header: dict[str, object] = {"format": _FORMAT}
    place = 0  # behind the header, whose own length counts
    for name, array in rows.items():
        header[name] = [array.dtype.str, array.shape, place, array.nbytes]
        place += -(-array.nbytes // _ALIGN) * _ALIGN
    first = -(-(8 + len(json.dumps(header)) + 32 * len(rows)) // _ALIGN) * _ALIGN
    for entry in header.values():
        if isinstance(entry, list):
            entry[2] += first
    text = json.dumps(header).encode()

    def write(files: Sequence[BinaryIO]) -> bool:
        files[0].write((len(text).to_bytes(8, "little") + text).ljust(first, b" "))
        for array in rows.values():
            files[0].write(array.data if array.size else b"")
            files[0].write(bytes(-array.nbytes % _ALIGN))
        return True

    written = write_kept([_name(about)], write)
    return (None if written is None else kept(*about)) or dict(arrays)


def remembered(make: Callable[[], Mapping[str, np.ndarray]], *about: object) -> Arrays:
    """What is kept of something, else what ``make`` gives, kept."""
    found = kept(*about)
    return keep(make(), *about) if found is None else found


def texts(**values: Any) -> Arrays:
    """Plain values as arrays of their JSON, uint8 each."""
    return {
        name: np.frombuffer(json.dumps(value).encode(), np.uint8) for name, value in values.items()
    }


def read_texts(found: Mapping[str, np.ndarray], name: str) -> Any:
    """The value that ``texts`` was given."""
    return json.loads(found[name].tobytes())


def state_of(path: Path | str) -> PathState | None:
    """The state of a file or folder; None where it is not there."""
    try:
        state = os.stat(path)  # noqa: PTH116 - of a hundred thousand folders
    except OSError:
        return None
    times = (state.st_mtime_ns, state.st_ctime_ns)
    return (state.st_dev, state.st_ino, state.st_size, *times)


def settled(states: Iterable[PathState], looked: float) -> bool:
    """Whether all had been changed long enough before somebody ``looked``, by ``time.time``, that a
    change after that would show."""
    newest = max((max(state[-2:]) for state in states), default=0)
    return newest < (looked - REST) * 1e9


def _name(about: Sequence[object]) -> str:
    return f"{digest_of(_FORMAT, *about)[:32]}.bin"
