"""One process at a time trains in a run folder."""

import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import lock_descriptor

from ptft.artifact import RunFiles
from ptft.errors import UsageError
from ptft.files.own import check_own_tree, open_own

__all__ = ["check_own_run", "lock_run"]


_LINKED = ("wandb",)  # a tracker's own folder, which has links to the newest of its files in it


def check_own_run(folder: Path) -> None:
    """Check that a folder that is to be written into is this user's, as all in it, without links.

    Raises:
        UsageError: naming what is not, and how to make it so.
    """
    try:
        check_own_tree(folder, but=_LINKED)
    except OSError as error:
        raise _not_own(folder, error) from None


def _not_own(folder: Path, error: OSError) -> UsageError:
    return UsageError(
        f"{error.filename or folder}: {error.strerror or error}; a run writes into its own user's "
        f"plain files alone; a copy has only such (cp -rL {folder} COPY), and run.dir names it"
    )


@contextmanager
def lock_run(folder: Path) -> Iterator[None]:
    """Lock a folder inside; the system unlocks it when this process ends, however it does.

    The file stays: to delete a file that another process may be about to lock would give each a
    lock of its own.

    Whatever is in the folder is this user's, and no link: a run that came from elsewhere may hold
    links to any place, and what a run writes and deletes below its folder stays below it.

    Raises:
        UsageError: another process holds it, which is named; or the folder is another user's, or
            something in it is, or is a link.
    """
    path = folder / RunFiles.LOCK
    path.parent.mkdir(parents=True, exist_ok=True)
    check_own_run(folder)
    try:
        descriptor = open_own(path, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise _not_own(folder, error) from None
    try:
        if not lock_descriptor(descriptor, blocking=False):
            holder = ""
            with suppress(OSError):  # Windows lets nobody else read a locked file
                holder = os.read(descriptor, 200).decode(errors="replace").strip()
            raise UsageError(
                f"{folder}: {holder or 'another process'} trains here already; wait for it, stop "
                "it, or give run.dir another folder"
            )
        os.truncate(descriptor, 0)
        os.write(descriptor, f"process {os.getpid()} on {platform.node()}\n".encode())
        yield
    finally:
        os.close(descriptor)
