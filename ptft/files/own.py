"""Files that are written in place: this user's own, and never what a link leads to.

A folder may come from anybody, as an archive or on a shared disk. A file in it that is appended to,
cut short or locked could be a link to one of this user's other files; so none is followed.
"""

import errno
import os
import shutil
import stat
import tempfile
from collections.abc import Collection
from io import FileIO
from pathlib import Path

__all__ = [
    "check_filled",
    "check_own_folder",
    "check_own_tree",
    "copy_plain",
    "is_own_file",
    "open_own",
    "open_plain",
]

_MOST_HOLES = 1 << 30  # bytes, beyond as many as there are data: what reading takes is bounded
_MOST_PIECES = 65_536  # of data between holes

_MESSAGES = {errno.ELOOP: "a link, which is not followed", errno.ENXIO: "a pipe, not a file"}


def open_own(path: Path, flags: int, mode: int = 0o600) -> int:
    """``os.open`` of a plain file of this user's, made if ``flags`` say so.

    Raises:
        OSError: it cannot be opened, is a link or no plain file, has another name elsewhere (a
            hard link), or belongs to another user; its ``strerror`` says which.
    """
    flags |= os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
    truncate, flags = flags & os.O_TRUNC, flags & ~os.O_TRUNC  # only once it is known to be ours
    try:
        file = os.open(path, flags, mode)
    except OSError as error:
        if error.errno in _MESSAGES:
            raise OSError(error.errno, _MESSAGES[error.errno], str(path)) from None
        raise
    try:
        state = os.fstat(file)
        if (reason := _not_own(state, path.parent)) is not None:
            raise OSError(errno.EPERM, reason, str(path))
        if truncate:
            os.ftruncate(file, 0)
    except BaseException:
        os.close(file)
        raise
    return file


def open_plain(path: Path) -> FileIO:
    """A plain file to be read, not buffered: what others made may be a pipe, which would be waited
    for without end, or a device, which has none.

    Raises:
        OSError: it cannot be opened, or is something else.
    """
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    if not stat.S_ISREG(mode := os.fstat(file).st_mode):
        os.close(file)
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, "a folder, not a file", str(path))
        raise OSError(errno.EINVAL, "not a plain file", str(path))
    return FileIO(file, "rb")


def check_filled(file: int, path: Path) -> None:
    """Hold an open file's size to be of bytes that lie on the disk: one of terabytes may be nothing
    but holes, which take a second a gigabyte to read. Disks that know no holes have none.

    Raises:
        OSError: most of it is holes.
    """
    size = os.fstat(file).st_size
    if size <= _MOST_HOLES or not hasattr(os, "SEEK_DATA"):
        return
    there = place = pieces = 0
    while place < size and pieces < _MOST_PIECES:
        try:
            first = os.lseek(file, place, os.SEEK_DATA)
            place = os.lseek(file, first, os.SEEK_HOLE)
        except OSError as error:
            if error.errno != errno.ENXIO:  # ENXIO: no data from there on
                return  # the disk cannot tell
            break
        there, pieces = there + place - first, pieces + 1
    os.lseek(file, 0, os.SEEK_SET)
    if size - there > there + _MOST_HOLES:
        raise OSError(
            errno.EFBIG, f"{size} bytes of which {there} are there, the others holes", str(path)
        )


def copy_plain(source: Path, target: Path, *, begins: bytes = b"") -> None:
    """Copy a plain file of somebody's folder, and never what a link leads to, to a new file.

    Args:
        begins: what its first bytes are.

    Raises:
        OSError: it is a link, or no plain file of that kind; or either cannot be opened.
    """
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | getattr(os, "O_NOFOLLOW", 0)
    with os.fdopen(os.open(source, flags), "rb") as stream:
        if not stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
            raise OSError(errno.EINVAL, "not a plain file", str(source))
        check_filled(stream.fileno(), source)
        if stream.read(len(begins)) != begins:
            raise OSError(errno.EINVAL, "not a file of its kind", str(source))
        stream.seek(0)
        with target.open("xb") as copy:
            shutil.copyfileobj(stream, copy, 1 << 20)


def is_own_file(path: Path) -> bool:
    """Whether a plain file of this user's lies there, and no link."""
    try:
        return _not_own(path.lstat(), path.parent) is None
    except OSError:
        return False


def check_own_folder(path: Path) -> None:
    """Hold a folder to be this user's.

    Raises:
        OSError: it is not; or there is none.
    """
    state = path.stat()
    if not stat.S_ISDIR(state.st_mode):
        raise OSError(errno.ENOTDIR, "not a folder", str(path))
    if not _is_mine(state, path):
        raise OSError(errno.EPERM, _OTHERS.format(state.st_uid), str(path))


def check_own_tree(folder: Path, *, but: Collection[str] = ()) -> None:
    """Hold a folder and all in it to be this user's, without a link in it, so that whatever is
    written or deleted below it is below it.

    Args:
        but: folders at the top, which are no links themselves, that are not looked into.

    Raises:
        OSError: naming what is not.
    """
    check_own_folder(folder)
    for place, folders, files in os.walk(folder, onerror=_raise):
        for name in [*folders, *files]:
            path = Path(place) / name
            try:
                state = path.lstat()
            except FileNotFoundError:  # another process deleted it meanwhile
                continue
            if stat.S_ISDIR(state.st_mode):
                if not _is_mine(state, path):
                    raise OSError(errno.EPERM, _OTHERS.format(state.st_uid), str(path))
            elif (reason := _not_own(state, Path(place), hard=True)) is not None:
                raise OSError(errno.EPERM, reason, str(path))
        if Path(place) == folder:
            folders[:] = [name for name in folders if name not in but]


def _raise(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError):  # another process deleted it meanwhile
        raise error


_OTHERS = "it belongs to another user (number {})"


def _not_own(state: os.stat_result, folder: Path, *, hard: bool = False) -> str | None:
    """Why a file is not one that may be written in place, in words; ``hard``: or replaced."""
    if stat.S_ISLNK(state.st_mode):
        return _MESSAGES[errno.ELOOP]
    if not stat.S_ISREG(state.st_mode):
        return "not a plain file"
    if state.st_nlink > 1 and not hard:
        return "a hard link: the file has another name elsewhere"
    return None if _is_mine(state, folder) else _OTHERS.format(state.st_uid)


def _is_mine(state: os.stat_result, folder: Path) -> bool:
    if state.st_uid == os.geteuid():
        return True
    # a disk of a network may give every file that this user makes to another number
    try:
        with tempfile.TemporaryFile(dir=folder) as made:
            return os.fstat(made.fileno()).st_uid == state.st_uid
    except OSError:
        return False
