"""Digests of files: made, held against what was recorded, and not made twice of the same bytes.

A model of gigabytes takes seconds to hash, each time that it is loaded. What was hashed is
therefore remembered, with all that the file system says of the file: device, inode, size, and the
times of the last change of its bytes and of its entry, in ns; only the system sets the last.
A file that changed a moment before it was hashed is not remembered, since another change could fall
into the same tick. The memory lies in a folder that is the user's own (mode 0700) and is not read
if anybody else could have written there. Whoever can write as this user can fake it, and much else.
"""

import hashlib
import json
import os
import stat
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ptft.errors import DigestError
from ptft.files.own import check_filled, open_plain

__all__ = [
    "CLOCK_TICK",
    "HeldFiles",
    "check_digests",
    "file_digests",
    "file_sha256",
    "record_check",
    "was_checked",
]

_SMALL = 1 << 20  # bytes; hashing these takes less time than looking into the memory
CLOCK_TICK = 2_000_000_000  # ns; of the coarsest clock of a file system that is in use
_KEPT = 1 << 20  # bytes of one remembered file that are read


def file_sha256(path: Path) -> str:
    """sha256 (hex) of a file's bytes, read through one small buffer.

    Raises:
        OSError: it cannot be read, is no plain file, or most of its size is holes.
    """
    with open_plain(path) as stream:
        check_filled(stream.fileno(), path)
        return hashlib.file_digest(stream, "sha256").hexdigest()


def file_digests(folder: Path, names: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Digest and size of files in ``folder``."""
    return {
        name: {"sha256": file_sha256(folder / name), "size": (folder / name).stat().st_size}
        for name in names
    }


@dataclass(frozen=True)
class HeldFiles:
    """Files as they were when their bytes were found right.

    Attributes:
        states: path -> what the file system said of it.
        unheld: what was not held, since nothing records it, in a sentence; "": nothing.
    """

    states: Mapping[Path, list[int]]
    unheld: str = ""

    def __or__(self, other: "HeldFiles") -> "HeldFiles":
        return HeldFiles({**self.states, **other.states}, self.unheld or other.unheld)

    def check_unchanged(self) -> None:
        """To be called once they were opened by their names again: nobody has put others there.

        Raises:
            DigestError: naming the first that is another.
        """
        for path, state in self.states.items():
            try:
                same = _state(path.stat()) == state
            except OSError:
                same = False
            if not same:
                raise DigestError(f"{path}: changed between the check of its bytes and their use")


def check_digests(
    folder: Path,
    files: Mapping[str, Mapping[str, Any]],
    *,
    record: str,
    remember: bool = False,
) -> HeldFiles:
    """Compare every recorded file with what lies in ``folder``.

    Args:
        files: name -> its recorded ``sha256`` (hex) and ``size`` in bytes.
        record: the file that records them, for the message.
        remember: take a digest that was made before of the very same file, and keep those that are
            made now; False: read every byte.

    Returns:
        The files as they were then.

    Raises:
        DigestError: naming the first file that is absent, or whose bytes differ.
    """
    memory = _Memory(folder) if remember else None
    states: dict[Path, list[int]] = {}
    for name, recorded in files.items():
        path = folder / name
        try:
            before = path.stat()
        except (OSError, ValueError):
            before = None
        if before is None or not stat.S_ISREG(before.st_mode):
            raise DigestError(f"{path}: missing; {record} records it")
        if before.st_size != recorded["size"]:
            raise DigestError(
                f"{path}: {before.st_size} bytes; {record} records {recorded['size']}"
            )
        actual = memory.recall(name, before) if memory is not None else None
        if actual is None:
            began = time.time_ns()
            try:
                actual = file_sha256(path)
                after = path.stat()
            except OSError as error:
                raise DigestError(f"{path}: cannot be read: {error.strerror or error}") from None
            if _state(before) != _state(after):
                raise DigestError(f"{path}: changed while it was read")
            if memory is not None and actual == recorded["sha256"]:
                memory.keep(name, before, actual, began)
        if actual != recorded["sha256"]:
            raise DigestError(f"{path}: sha256 {actual}; {record} records {recorded['sha256']}")
        states[path] = _state(before)
    if memory is not None:
        memory.write()
    return HeldFiles(states)


def record_check(kind: str, key: str) -> None:
    """Remember that something was found to be so, such as a model that ran within its bounds.

    Args:
        kind: a word.
        key: what it is true of: digests of all that it depends on.
    """
    if (folder := _own_folder(make=True)) is not None:
        with suppress(OSError):
            _write(folder / _name(kind, key), {"kind": kind, "key": key})


def was_checked(kind: str, key: str) -> bool:
    """Whether :func:`record_check` was told so."""
    folder = _own_folder(make=False)
    values = None if folder is None else _read(folder / _name(kind, key))
    return values == {"kind": kind, "key": key}


class _Memory:
    """Digests of the files of one folder, as they were made before."""

    def __init__(self, folder: Path) -> None:
        self._key = str(folder.resolve())
        place = _own_folder(make=False)
        values = None if place is None else _read(place / _name("files", self._key))
        known = values.get("files") if isinstance(values, dict) else None
        theirs = isinstance(values, dict) and values.get("folder") == self._key
        self._known: dict[str, Any] = known if theirs and isinstance(known, dict) else {}
        self._changed = False

    def recall(self, name: str, state: os.stat_result) -> str | None:
        """sha256 (hex) of a file in this state; None where it is not known, or soon made anew."""
        if state.st_size < _SMALL:
            return None
        found = self._known.get(name)
        if isinstance(found, list) and found[:-1] == _state(state) and isinstance(found[-1], str):
            return found[-1]
        return None

    def keep(self, name: str, state: os.stat_result, sha256: str, began: int) -> None:
        """Remember a digest that was made of a file in this state, from ``began`` (ns) on."""
        changed = max(state.st_mtime_ns, state.st_ctime_ns)
        if state.st_size >= _SMALL and changed < began - CLOCK_TICK:
            self._known[name] = [*_state(state), sha256]
            self._changed = True

    def write(self) -> None:
        """Put what was added where the next process finds it; where it may not, nothing is lost."""
        if not self._changed or (place := _own_folder(make=True)) is None:
            return
        with suppress(OSError):
            _write(place / _name("files", self._key), {"folder": self._key, "files": self._known})


def _state(found: os.stat_result) -> list[int]:
    return [found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns]


def _name(kind: str, key: str) -> str:
    return f"{kind}-{hashlib.sha256(key.encode()).hexdigest()}.json"


def _own_folder(*, make: bool) -> Path | None:
    """Where the memory lies; None where there is no place that is this user's alone."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    try:
        folder = (Path(base) if Path(base).is_absolute() else Path.home() / ".cache") / "ptft/held"
        if make:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = folder.lstat()
    except (OSError, RuntimeError):  # no home, or one that may only be read
        return None
    own = not hasattr(os, "getuid") or found.st_uid == os.getuid()
    return folder if stat.S_ISDIR(found.st_mode) and own and not found.st_mode & 0o077 else None


def _read(path: Path) -> Any:
    try:
        with path.open("rb") as stream:
            return json.loads(stream.read(_KEPT))
    except (OSError, ValueError, RecursionError):
        return None


def _write(path: Path, values: object) -> None:
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        partial.write_text(json.dumps(values), encoding="utf-8")
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
