"""What opening a large set found, kept in the cache of columns: to open it again is to map it.

A file is named by what it was found of and by the state of that (sizes and times of files), so that
what changed is looked for anew. Nobody but this user writes there, and what cannot be read there is
made again.
"""

import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from ptft.data.hashing import digest_of
from ptft.data.mapped import map_kept, write_kept

__all__ = [
    "MANY",
    "REST",
    "Arrays",
    "State",
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

State = tuple[int, ...]
"""Of a file or folder: its device, number, size, and its times of change in ns."""

_FORMAT = "ptft-kept-1"
_ALIGN = 64  # bytes: no number of an array lies across two lines of a processor's cache
REST = 2.0  # seconds; of what was changed later a second change might show the same times


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


def state_of(path: Path | str) -> State | None:
    """The state of a file or folder; None where it is not there."""
    try:
        state = os.stat(path)  # noqa: PTH116 - of a hundred thousand folders
    except OSError:
        return None
    times = (state.st_mtime_ns, state.st_ctime_ns)
    return (state.st_dev, state.st_ino, state.st_size, *times)


def settled(states: Iterable[State], looked: float) -> bool:
    """Whether all had been changed long enough before somebody ``looked``, by ``time.time``, that a
    change after that would show."""
    newest = max((max(state[-2:]) for state in states), default=0)
    return newest < (looked - REST) * 1e9


def _name(about: Sequence[object]) -> str:
    return f"{digest_of(_FORMAT, *about)[:32]}.bin"
