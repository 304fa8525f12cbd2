"""The files of a run at one moment, held open so that the run may go on and delete them."""

import errno
import hashlib
import os
import re
import stat
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ptft.artifact import RunFiles, read_json
from ptft.checkpoint import checkpoints
from ptft.errors import ArtifactError, PtftError
from ptft.files.bounds import check_names
from ptft.files.own import check_filled
from ptft.runs.folder import RunStatus
from ptft.runs.mirror.manifest import Position

__all__ = ["HeldFile", "Snapshot", "position_of", "take_snapshot"]

_PIECE = 16 << 20  # bytes in memory at once
_NOT_OURS = ("wandb",)  # a tracker's own folder, which the tracker sends elsewhere
_STAGE = re.compile(r"(\d+)-.+")


@dataclass(frozen=True)
class HeldFile:
    """A file as it was: what is appended later is not of it.

    Attributes:
        name: in the run folder.
        descriptor: open for reading.
        size: bytes.
        state: tells this state of the file from others, in this process.
        sha256: hex, where a record beside it has that.
    """

    name: str
    descriptor: int
    size: int
    state: tuple[int, ...]
    sha256: str | None = None

    def pieces(self) -> Iterator[bytes]:
        """Its bytes.

        Raises:
            OSError: it was cut short meanwhile.
        """
        done = 0
        while done < self.size:
            piece = os.pread(self.descriptor, min(_PIECE, self.size - done), done)
            if not piece:
                raise OSError(f"{self.name}: cut short while it was read")
            done += len(piece)
            yield piece

    def checked(self, sha256: str) -> Iterator[bytes]:
        """Its bytes, of which the last piece is not given away unless they are those of a digest.

        Raises:
            ArtifactError: they are not.
            OSError: as of :meth:`pieces`.
        """
        found, last = hashlib.sha256(), b""
        for piece in self.pieces():
            if last:
                yield last
            found.update(piece)
            last = piece
        if found.hexdigest() != sha256:
            raise ArtifactError(f"{self.name}: its bytes are not those that were recorded")
        yield last

    def digest(self) -> str:
        """Its sha256 (hex)."""
        found = hashlib.sha256()
        for piece in self.pieces():
            found.update(piece)
        return found.hexdigest()


@dataclass
class Snapshot:
    """A run at one moment.

    Attributes:
        taken: when, by ``time.monotonic``.
        position: of the run.
        files: held open until :meth:`close`.
        left_out: names that a mirror does not take.
    """

    taken: float
    position: Position
    files: list[HeldFile] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)

    def close(self) -> None:
        """Let go of the files."""
        while self.files:
            os.close(self.files.pop().descriptor)


def take_snapshot(folder: Path) -> Snapshot:
    """Hold the files that a run needs to go on elsewhere, and its records: all but checkpoints
    older than the newest, those of finished runs, hidden and unfinished files, and links.

    Args:
        folder: of a run or a sequence. Nobody writes into it meanwhile but what appends to logs.

    Raises:
        OSError: a file cannot be opened.
        ArtifactError: the checkpoint has no record, or two names differ in letter case alone.
    """
    snapshot = Snapshot(time.monotonic(), position_of(folder))
    try:
        for place, folders, names in os.walk(folder):
            here = Path(place)
            folders[:] = sorted(name for name in folders if _is_mirrored(here, name))
            known = _recorded(here)
            for name in sorted(names):
                if not name.startswith("."):
                    _hold(snapshot, folder, here / name, known.get(name))
        check_names((held.name for held in snapshot.files), str(folder))
    except BaseException:
        snapshot.close()
        raise
    return snapshot


def position_of(folder: Path) -> Position:
    """How far the run or the sequence in a folder is; zeros where there is none."""
    if _status(folder) is None:
        return (0, 0, 0)
    if _status(folder) == RunStatus.FINISHED:
        return (1, 0, 0)  # it may have been brought back, without checkpoints
    stages = sorted(
        (int(found[1]), path)
        for path in folder.iterdir()
        if (found := _STAGE.fullmatch(path.name)) and _status(path) is not None
    )
    done = [path for _, path in stages if _status(path) == RunStatus.FINISHED]
    under_way = [path for _, path in stages if path not in done]
    newest = checkpoints((under_way[0] if under_way else folder) / RunFiles.CHECKPOINTS)
    step = int(newest[0].name.removeprefix("step-")) if newest else 0
    return (0, len(done), step)


def _status(folder: Path) -> str | None:
    """What ``run.json`` says of a run; None where there is none that can be read."""
    with suppress(PtftError):
        values = read_json(folder / RunFiles.RUN)
        if isinstance(values, dict):
            return str(values.get("status"))
    return None


def _is_mirrored(here: Path, name: str) -> bool:
    if name.startswith(".") or name in _NOT_OURS or (here / name).is_symlink():
        return False
    if name == RunFiles.CHECKPOINTS:
        return _status(here) != RunStatus.FINISHED
    if here.name == RunFiles.CHECKPOINTS:
        return [here / name] == checkpoints(here)[:1]
    return True


def _recorded(place: Path) -> dict[str, Any]:
    """Digests that a checkpoint records of its own files."""
    if place.parent.name != RunFiles.CHECKPOINTS:
        return {}
    values = read_json(place / "state.json")
    return {name: entry["sha256"] for name, entry in values["files"].items()}


def _hold(snapshot: Snapshot, folder: Path, path: Path, sha256: str | None) -> None:
    name = path.relative_to(folder).as_posix()
    try:
        check_names([name], str(folder))
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except ArtifactError:
        snapshot.left_out.append(name)
        return
    except OSError as error:
        if error.errno != errno.ELOOP:  # anything but a link is needed
            raise
        snapshot.left_out.append(name)
        return
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode):
        os.close(descriptor)
        snapshot.left_out.append(name)
        return
    try:
        check_filled(descriptor, path)
    except OSError:
        os.close(descriptor)
        raise
    state = (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)
    snapshot.files.append(HeldFile(name, descriptor, found.st_size, state, sha256))
