"""Files as others find them: whole, and with the rights that the user's umask gives.

A model folder is made to be mounted, served and shared, a run to be looked at, so that what ptft
writes there has the rights of any file that the user creates: who wants them private says so by the
umask (077) or keeps them in a private folder. Libraries that write 0600 whatever the umask is
(safetensors) are followed by :func:`shareable`. Caches are the user's alone, and not made here.
"""

import errno
import os
import secrets
import stat
from pathlib import Path

__all__ = ["create_atomic", "shareable", "write_atomic"]

_NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EXDEV)


def write_atomic(path: Path, data: bytes | str) -> None:
    """Write a file so that a reader sees all of it or, if killed meanwhile, the one before.

    What lies there under another name is never followed or written to: the name of the unfinished
    file cannot be foreseen, and a link in place of ``path`` is replaced, not what it leads to.
    """
    partial, descriptor = _create(path)
    try:
        with open(descriptor, "wb") as stream:  # noqa: PTH123 - not by a name
            stream.write(data if isinstance(data, bytes) else _encoded(data))
            stream.flush()
            os.fsync(stream.fileno())
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def create_atomic(path: Path, data: bytes | str) -> bool:
    """Write a file that is not there yet; of several processes and machines one succeeds.

    It is whole for every reader, but on a disk that knows no hard links, where one may see the
    beginning of it.

    Returns:
        Whether it was written; False: another was there first, and stays.
    """
    data = data if isinstance(data, bytes) else _encoded(data)
    partial, descriptor = _create(path)
    try:
        with open(descriptor, "wb") as stream:  # noqa: PTH123 - not by a name
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        try:
            os.link(partial, path, follow_symlinks=False)
        except FileExistsError:
            # NFS: an answer that was lost is asked for again, and finds the link that it made
            return partial.stat().st_nlink > 1
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            return _create_in_place(path, data)
        return True
    finally:
        partial.unlink(missing_ok=True)


def _create_in_place(path: Path, data: bytes) -> bool:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | getattr(os, "O_NOFOLLOW", 0)
    try:
        descriptor = os.open(path, flags, 0o666)
    except FileExistsError:
        return False
    with open(descriptor, "wb") as stream:  # noqa: PTH123 - not by a name
        stream.write(data)
    return True


def _encoded(text: str) -> bytes:
    """UTF-8; half a character (of a file's name that is none) is an escape, as JSON has it."""
    return text.encode(errors="backslashreplace")


def shareable(path: Path) -> None:
    """Give a file or folder that this process wrote the rights that the umask gives to any other.

    They are read off a new file beside it: the umask cannot be asked for without being set, which
    other threads would see. Who may read a folder may enter it.
    """
    beside, descriptor = _create(path)
    try:
        rights = os.fstat(descriptor).st_mode & 0o777
        if path.is_dir():
            rights |= (rights & 0o444) >> 2 | path.stat().st_mode & stat.S_ISGID
        path.chmod(rights)
    finally:
        os.close(descriptor)
        beside.unlink()


def _create(path: Path) -> tuple[Path, int]:
    """A new, empty file beside ``path`` that nobody could foresee the name of, open to write."""
    partial = path.with_name(f".{path.name}.{secrets.token_hex(8)}.partial")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | getattr(os, "O_NOFOLLOW", 0)
    return partial, os.open(partial, flags, 0o666)
