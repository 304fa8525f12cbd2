"""Where a pull puts a folder: whole or not at all, with what was left out on purpose written down.

What a service needs goes straight from the Hub to beside its place, so that the disk holds it once.
A pull that is cut off leaves that folder, and the next one goes on from it.
"""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from filelock import lock_descriptor

from ptft.artifact import FolderFiles, ModelInfo, read_model_info, verify_files
from ptft.errors import ArtifactError, DigestError, HubError, UsageError
from ptft.files.own import check_own_tree
from ptft.hub.pulled import changed_since_pull, record_pulled
from ptft.onnx.served import absent_on_purpose, read_parts, served_files, write_parts

__all__ = ["Wanted", "check_dest", "complete", "lacking", "part_place", "place"]

_CLIENT = ".cache"  # what the Hub's client keeps beside a download


@dataclass(frozen=True)
class Wanted:
    """What is asked of a pull.

    Attributes:
        serving: only what a service reads.
        precision: of those files; () for all that the model has.
        signed_by: a public key; None: signed or not.
    """

    serving: bool = False
    precision: tuple[str, ...] = ()
    signed_by: Path | None = None


def check_dest(dest: Path) -> None:
    """Refuse a place that holds something else than a model folder.

    Raises:
        UsageError: so it does.
    """
    if _occupied(dest) and not (dest / FolderFiles.INFO).is_file():
        raise UsageError(f"{dest}: holds something else already; name another folder")


def _occupied(dest: Path) -> bool:
    return dest.exists() and not (dest.is_dir() and not any(dest.iterdir()))


def lacking(dest: Path, info: ModelInfo, names: list[str]) -> list[str] | None:
    """Which of these recorded files a place is without, the others held against the record; None of
    a place where no model is.

    Raises:
        UsageError: it holds another model.
        DigestError: it holds one that was changed.
    """
    if not _occupied(dest):
        return None
    if changed := changed_since_pull(dest):
        raise DigestError(f"{dest}: {changed[0]}")
    if read_model_info(dest) != info:
        raise UsageError(f"{dest}: holds another model already; name another folder")
    absent = set(absent_on_purpose(dest, info))
    verify_files(dest, {name: info.files[name] for name in info.files if name not in absent})
    return [name for name in names if name in absent]


def place(folder: Path, info: ModelInfo, dest: Path) -> Path:
    """Copy the verified files of a whole folder to ``dest``, which appears whole or not at all; or
    add those that it was pulled without.

    Raises:
        UsageError: ``dest`` holds another model.
        DigestError: it holds one that was changed; or the copy came out wrong.
    """
    missing = lacking(dest, info, list(info.files))
    if missing == []:
        return dest
    partial = dest.with_name(f".{dest.name}.{os.getpid()}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        dest.parent.mkdir(parents=True, exist_ok=True)
        partial.mkdir()  # a new one: not through a link that somebody put there
        for name in (*info.files, *FolderFiles.UNHASHED) if missing is None else missing:
            if not (folder / name).is_file():
                continue  # a card is no must
            (partial / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(folder / name, partial / name)
        verify_files(partial, {name: info.files[name] for name in missing or info.files})
        if missing is None:
            record_pulled(partial)
            partial.rename(dest)
        else:
            _add(partial, missing, dest)
            (dest / FolderFiles.PARTS).unlink()
    except OSError as error:
        raise ArtifactError(f"{dest}: cannot be written: {error.strerror or error}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return dest


@contextmanager
def part_place(dest: Path) -> Iterator[Path]:
    """A folder beside ``dest``, held by one process at a time, that is filled and then put there.

    It outlives a pull that was cut off or met a damaged byte; anything else removes it.

    Raises:
        ArtifactError: it cannot be made, or is a link or another user's.
    """
    partial = dest.with_name(f".{dest.name}.partial")
    try:
        dest.parent.mkdir(parents=True, exist_ok=True)
        held = _hold(partial)
    except OSError as error:
        raise ArtifactError(f"{dest}: cannot be written: {error.strerror or error}") from error
    try:
        check_own_tree(partial)
        yield partial
    except (HubError, DigestError, KeyboardInterrupt):
        raise
    except OSError as error:
        raise ArtifactError(f"{dest}: cannot be written: {error.strerror or error}") from error
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    finally:
        os.close(held)


def _hold(partial: Path) -> int:
    """Make a folder and lock it: the one that has the name by then, not one that its last holder
    has put elsewhere."""
    while True:
        partial.mkdir(exist_ok=True)
        held = None
        with suppress(FileNotFoundError):
            held = os.open(partial, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            lock_descriptor(held, blocking=True)  # another process may be filling it
            if os.path.samestat(os.fstat(held), partial.lstat()):
                return held
        if held is not None:
            os.close(held)


def complete(partial: Path, dest: Path, info: ModelInfo, wanted: Wanted) -> None:
    """Put a filled folder where it belongs, or its files into the folder that is there.

    Every byte was held against its record.
    """
    shutil.rmtree(partial / _CLIENT, ignore_errors=True)
    names = served_files(info, wanted.precision)
    if _occupied(dest):
        _add(partial, [name for name in names if (partial / name).is_file()], dest)
        parts = read_parts(dest)
        write_parts(dest, info, {*wanted.precision, *(parts.precision if parts else ())})
        shutil.rmtree(partial)
        return
    for path in sorted(partial.rglob("*")):  # of another revision, before the pull was cut off
        name = path.relative_to(partial).as_posix()
        if path.is_file() and name not in names and name not in FolderFiles.UNHASHED:
            path.unlink()
    write_parts(partial, info, wanted.precision)
    record_pulled(partial)
    partial.rename(dest)


def _add(partial: Path, names: list[str], dest: Path) -> None:
    for name in names:
        (dest / name).parent.mkdir(parents=True, exist_ok=True)
        (partial / name).replace(dest / name)
