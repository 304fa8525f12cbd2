"""A folder of what can be fetched or computed again, which touches nothing that is not its own.

It is told by a file of its own in it: a folder that holds anything else without one is refused,
since what a cache needs no longer, it deletes. Only this user may look into it, so that nobody
puts a file into another's.
"""

import contextlib
import errno
import os
import re
import stat
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from filelock import lock_descriptor

from ptft.errors import DataError
from ptft.files.own import check_own_folder, is_own_file, open_own

__all__ = ["CacheFolder"]

_MARKER = ".ptft-cache"
_FIRST = "ptft cache, format 1: "


class CacheFolder:
    """A cache of one kind of files in a folder of its own.

    Args:
        path: of the folder; made when it is first needed.
        kind: what it holds, which its marker says.
        names: what every name in it matches.
        key: of the recipe, which names another folder.
    """

    def __init__(self, path: Path, *, kind: str, names: re.Pattern[str], key: str) -> None:
        self.path = path
        self._kind = kind
        self._names = names
        self._key = key
        self._is_ready = False

    def ready(self) -> None:
        """Make the folder, or check that it is such a cache.

        A folder of before there was a marker, which holds nothing but names of its own, gets one.

        Raises:
            DataError: it holds other things, is another user's, or cannot be written.
        """
        if self._is_ready:
            return
        with self.named_errors():
            self.path.mkdir(parents=True, exist_ok=True, mode=0o700)
            check_own_folder(self.path)
            marker = self.path / _MARKER
            if not is_own_file(marker):
                self._adopt(marker)
            with os.fdopen(open_own(marker, os.O_RDONLY), "rb") as stream:
                said = stream.read(200).decode(errors="replace").strip()
            if said != _FIRST + self._kind:
                raise DataError(
                    f"{self.path}: a cache of something else ({said[:80]!r}); {self._key} names "
                    "another folder"
                )
            if stat.S_IMODE(self.path.stat().st_mode) & 0o077:
                self.path.chmod(0o700)
        self._is_ready = True

    def _adopt(self, marker: Path) -> None:
        """Mark a folder that is empty or holds nothing but what such a cache has."""
        with os.scandir(self.path) as entries:
            for entry in entries:
                if entry.name.startswith(_MARKER) and not entry.is_symlink():
                    continue  # another process is writing it
                if entry.is_symlink() or self._names.fullmatch(entry.name) is None:
                    raise DataError(
                        f"{self.path}: no cache of ptft: it holds {entry.name!r}; {self._key} "
                        "names an empty or a new folder, since a cache deletes what is old"
                    )
        partial = self.path / f"{_MARKER}.{os.getpid()}.{threading.get_ident()}"
        partial.unlink(missing_ok=True)
        with os.fdopen(open_own(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL), "wb") as stream:
            stream.write((_FIRST + self._kind + "\n").encode())
        partial.replace(marker)

    def holds(self, name: str) -> Path | None:
        """The path of a file of this cache, None where there is none or none of this user's."""
        path = self.path / name
        return path if is_own_file(path) else None

    @contextlib.contextmanager
    def lock(self, name: str, *, wait: bool = True) -> Iterator[bool]:
        """A lock of this folder, held inside; False where another process has it and is not waited
        for.

        The file stays, and nothing is ever written into it.
        """
        self.ready()
        with self.named_errors():
            file = open_own(self.path / name, os.O_RDWR | os.O_CREAT)
        try:
            yield lock_descriptor(file, blocking=wait)
        finally:
            os.close(file)

    def make_room(
        self, size: int, limit: float, files: re.Pattern[str], *, rest: float = 0.0
    ) -> None:
        """Let go what was used least recently until another file of ``size`` bytes has room.

        Args:
            limit: bytes of all files that ``files`` matches, which is of this cache's own names.
            rest: seconds within which what was used stays: a process may be about to open it.
        """
        states: list[tuple[float, int, Path]] = []
        for path in self.path.iterdir():
            if files.fullmatch(path.name) is None or self.holds(path.name) is None:
                continue
            with contextlib.suppress(FileNotFoundError):
                state = path.lstat()
                states.append((state.st_mtime, state.st_size, path))
        total = size + sum(one for _, one, _ in states)
        for used, one, path in sorted(states):
            if total <= limit or used > time.time() - rest:
                break
            path.unlink(missing_ok=True)
            total -= one

    @contextlib.contextmanager
    def named_errors(self) -> Iterator[None]:
        """Raise an error of the system inside as a DataError that names the folder and the key."""
        try:
            yield
        except OSError as error:
            where = f" ({Path(str(error.filename)).name})" if error.filename else ""
            if error.errno == errno.ENOTDIR or str(error.filename) == str(self.path):
                where = ""
            raise DataError(
                f"{self.path}: {error.strerror or error}{where}; {self._key} names another folder"
            ) from None
