"""The files of a push: opened once, checked, and sent from where they were opened.

A model folder may come from a stranger, and what is published cannot be taken back. So nothing but
a plain file of the folder itself is sent: no link (its target may be a key in a home), no pipe, no
device; and what is checked is what is sent, whatever happens to the folder meanwhile.
"""

import errno
import hashlib
import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from ptft.artifact import FolderFiles
from ptft.errors import ArtifactError, DigestError
from ptft.files.own import check_filled

__all__ = ["OpenFile", "check_entries", "open_files"]

_SMALL = 8 << 20  # bytes; what the Hub takes in the commit itself has less than 10 MB
_PIECE = 1 << 20
_KINDS = {
    stat.S_IFLNK: "a link",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


@dataclass(frozen=True)
class OpenFile:
    """A file that is open, and was read to its end.

    Attributes:
        content: its bytes, of a small file; else the path of the open descriptor.
        size: in bytes.
        sha256: of the bytes, hex.
    """

    content: bytes | Path
    size: int
    sha256: str


def check_entries(folder: Path) -> list[str]:
    """Names of the plain files below a folder, hidden ones at its top left out.

    Raises:
        ArtifactError: a link, or something that is neither a file nor a folder.
    """
    names: list[str] = []
    places = [folder]
    while places:
        with os.scandir(places.pop()) as entries:
            for entry in entries:
                name = Path(entry.path).relative_to(folder).as_posix()
                if name.startswith("."):
                    continue  # what the Hub's client keeps beside a download
                mode = entry.stat(follow_symlinks=False).st_mode
                if stat.S_ISDIR(mode):
                    places.append(Path(entry.path))
                elif stat.S_ISREG(mode):
                    names.append(name)
                else:
                    raise _refused(folder, name, mode)
    return sorted(names)


@contextmanager
def open_files(
    folder: Path, names: Sequence[str], recorded: Mapping[str, Mapping[str, Any]]
) -> Iterator[dict[str, OpenFile]]:
    """Open every file, and hold it against what is recorded of it.

    Args:
        names: ``a/b``, of plain files in ``folder``.
        recorded: name -> its ``sha256`` (hex) and ``size``, of those of which there is a record.

    Raises:
        ArtifactError: one is a link, no plain file, or no longer there; or one of those without a
            record has other names (hard links), so that nothing says that it belongs here.
        DigestError: the bytes are not the recorded ones.
    """
    with ExitStack() as stack:
        found: dict[str, OpenFile] = {}
        for name in [*recorded, *(name for name in names if name not in recorded)]:
            descriptor = _open(folder, name, recorded)
            opened = _read(descriptor, folder / name)
            if isinstance(opened.content, bytes):
                os.close(descriptor)
            else:
                stack.callback(os.close, descriptor)
            if name in recorded:
                _compare(folder / name, opened, recorded[name])
            found[name] = opened
        yield {name: found[name] for name in sorted(found)}


def _open(folder: Path, name: str, recorded: Mapping[str, Mapping[str, Any]]) -> int:
    """A descriptor of the file, reached through no link; not waiting where it is a pipe."""
    *parents, last = PurePosixPath(name).parts
    flags = os.O_RDONLY | os.O_CLOEXEC
    try:
        place = os.open(folder, flags | os.O_DIRECTORY)
        for part in parents:
            inside = os.open(part, flags | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=place)
            os.close(place)
            place = inside
        try:
            descriptor = os.open(last, flags | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=place)
        finally:
            os.close(place)
    except FileNotFoundError:
        if name in recorded:
            raise DigestError(f"{folder / name}: missing; {FolderFiles.INFO} records it") from None
        raise ArtifactError(f"{folder}: {name}: no longer there") from None
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENOTDIR):
            raise _refused(folder, name, stat.S_IFLNK) from None
        raise ArtifactError(f"{folder}: {name}: {error.strerror}") from None
    state = os.fstat(descriptor)
    if not stat.S_ISREG(state.st_mode):
        os.close(descriptor)
        raise _refused(folder, name, state.st_mode)
    try:
        check_filled(descriptor, folder / name)
    except OSError as error:
        os.close(descriptor)
        raise ArtifactError(f"{folder}: {name}: {error.strerror}") from None
    if state.st_nlink > 1 and name not in recorded:
        os.close(descriptor)
        raise ArtifactError(
            f"{folder}: {name}: is a file with {state.st_nlink} names (hard links), of which one "
            "may lie anywhere; allowed: a file of its own, so copy it"
        )
    return descriptor


def _refused(folder: Path, name: str, mode: int) -> ArtifactError:
    kind = _KINDS.get(stat.S_IFMT(mode), "no plain file")
    return ArtifactError(
        f"{folder}: {name}: is {kind}, and is not published; allowed: plain files and folders"
    )


def _read(descriptor: int, path: Path) -> OpenFile:
    digest, size = hashlib.sha256(), 0
    pieces: list[bytes] = []
    while piece := os.pread(descriptor, _PIECE, size):
        digest.update(piece)
        size += len(piece)
        pieces = [*pieces, piece] if size <= _SMALL else []
    content: bytes | Path = b"".join(pieces)
    if size > _SMALL:
        handle = Path(f"/proc/self/fd/{descriptor}")  # opens this very file, under any name
        content = handle if handle.exists() else path
    return OpenFile(content, size, digest.hexdigest())


def _compare(path: Path, found: OpenFile, recorded: Mapping[str, Any]) -> None:
    info = FolderFiles.INFO
    if found.size != recorded["size"]:
        raise DigestError(f"{path}: {found.size} bytes; {info} records {recorded['size']}")
    if found.sha256 != recorded["sha256"]:
        raise DigestError(f"{path}: sha256 {found.sha256}; {info} records {recorded['sha256']}")
