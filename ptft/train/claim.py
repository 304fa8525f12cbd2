"""One process at a time trains in a run folder."""

import fcntl
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ptft.artifact import RunFiles
from ptft.errors import UsageError

__all__ = ["claim_run"]


@contextmanager
def claim_run(folder: Path) -> Iterator[None]:
    """Hold the folder's lock; the system lets go of it when this process ends, however it does.

    The file stays: to delete a file that another process may be about to lock would give each a
    lock of its own.

    Raises:
        UsageError: another process holds it, which is named.
    """
    path = folder / RunFiles.LOCK
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(descriptor, 200).decode(errors="replace").strip()
            raise UsageError(
                f"{folder}: {holder or 'another process'} trains here already; wait for it, stop "
                "it, or give run.dir another folder"
            ) from None
        os.truncate(descriptor, 0)
        os.write(descriptor, f"process {os.getpid()} on {platform.node()}\n".encode())
        yield
    finally:
        os.close(descriptor)
