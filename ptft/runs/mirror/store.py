"""The place of a mirror: names below one address, read and written whole."""

import hashlib
import secrets
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from fsspec.implementations.local import LocalFileSystem

from ptft.errors import DigestError, MirrorError
from ptft.files.atomic import create_atomic
from ptft.files.store import open_store, store_error
from ptft.recipe.paths import is_url

__all__ = ["MirrorStore", "free_bytes"]

_PIECE = 16 << 20  # bytes in memory at once
_CREATE = frozenset({"s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "memory"})
"""Stores that write a file only where none is, as one operation (S3: If-None-Match)."""


class MirrorStore:
    """Files below an address.

    Args:
        url: of fsspec, or a path.

    Raises:
        MissingExtraError: the store's package is not installed.
        MirrorError: (from every method, too) the store does not answer, or not to us.
    """

    def __init__(self, url: str) -> None:
        self.url = url if is_url(url) else str(Path(url).expanduser().absolute())
        self._system, root = open_store(self.url, MirrorError)
        self._root = root.rstrip("/")
        self._local = isinstance(self._system, LocalFileSystem)

    @property
    def folder(self) -> Path | None:
        """Where it lies, on a disk that is mounted here."""
        return Path(self._root) if self._local else None

    def check_apart(self, run: Path) -> None:
        """Refuse a place within a run folder."""
        if self.folder is None:
            return
        mine, theirs = run.resolve(), self.folder.resolve()
        if mine == theirs or mine in theirs.parents:
            raise MirrorError(
                f"run.mirror: {str(self.folder)!r}: within the run folder {str(run)!r}; allowed: a "
                "place outside of it"
            )

    def names(self, folder: str) -> dict[str, int]:
        """Name -> size in bytes of the files in a folder; empty where there is none."""
        path = self._path(folder)
        try:
            entries = self._system.ls(path, detail=True, refresh=True)
        except FileNotFoundError:
            return {}
        except Exception as error:  # each store raises its own
            raise self._error(folder, error) from None
        return {
            f"{folder}/{entry['name'].rstrip('/').rpartition('/')[2]}": int(entry["size"] or 0)
            for entry in entries
            if entry.get("type", "file") == "file"
        }

    def read(self, name: str, *, most: int) -> bytes | None:
        """A file whole; None where there is none, or one larger than ``most`` bytes."""
        try:
            data: bytes = self._system.cat_file(self._path(name), start=0, end=most + 1)
        except FileNotFoundError:
            return None
        except Exception as error:  # each store raises its own
            raise self._error(name, error) from None
        return data if len(data) <= most else None

    def write(self, name: str, pieces: Iterable[bytes]) -> None:
        """Write a file such that a reader sees all of it or none."""
        path = self._path(name)
        try:
            if self._local:
                self._write_local(Path(path), pieces)
                return
            first, rest = _split(pieces)
            if rest is None:
                self._system.pipe_file(path, first)
            else:
                with self._system.open(path, "wb") as stream:
                    stream.write(first)
                    for piece in rest:
                        stream.write(piece)
        except Exception as error:  # each store raises its own
            raise self._error(name, error) from None

    def create(self, name: str, data: bytes) -> bool:
        """Write a file that is not there yet, whole; of several machines one succeeds.

        Args:
            data: unlike what anybody else would write there.

        Returns:
            Whether it was written; False: another was there first, and stays.
        """
        path = self._path(name)
        try:
            if self._local:
                Path(path).parent.mkdir(parents=True, exist_ok=True)
                return create_atomic(Path(path), data)
            self._system.pipe_file(path, data, mode="create")
        except FileExistsError:
            # a request that was sent again, its answer lost, finds what it wrote
            return self.read(name, most=len(data)) == data
        except Exception as error:  # each store raises its own
            raise self._error(name, error) from None
        return True

    def check_creates(self, name: str) -> None:
        """Check that :meth:`create` refuses what is there.

        Args:
            name: of a file to try that with, which nobody else has; it is deleted again.

        Raises:
            MirrorError: this store has no such operation, or does not answer.
        """
        protocols = self._system.protocol
        known = {protocols} if isinstance(protocols, str) else set(protocols)
        works = self._local or bool(known & _CREATE)
        if works and self.create(name, b"first"):
            works = not self.create(name, b"second")
            self.delete([name])
        if not works:
            raise MirrorError(
                f"{self.url}: this store does not refuse to write a file that is there, by which "
                "workers claim their cells; allowed: a folder on a shared disk, s3://, gs:// or "
                "az://"
            )

    def fetch(self, name: str, target: Path, *, size: int, sha256: str) -> None:
        """Bring a file here, no more of it than its size.

        Raises:
            DigestError: it is absent, or not what was recorded.
            OSError: the disk here has no room.
        """
        digest, done = hashlib.sha256(), 0
        path = self._path(name)
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("xb") as stream:
            while done < size:
                try:
                    end = min(done + _PIECE, size)
                    piece: bytes = self._system.cat_file(path, start=done, end=end)
                except FileNotFoundError:
                    raise DigestError(f"{self.url}/{name}: missing") from None
                except Exception as error:  # each store raises its own
                    raise self._error(name, error) from None
                if not piece:
                    break
                digest.update(piece)
                stream.write(piece)
                done += len(piece)
        if done != size or digest.hexdigest() != sha256:
            raise DigestError(f"{self.url}/{name}: not the {size} bytes that were recorded")

    def delete(self, names: Iterable[str]) -> None:
        """Delete files; what is absent already is well."""
        for name in names:
            try:
                self._system.rm_file(self._path(name))
            except FileNotFoundError:
                continue
            except Exception as error:  # each store raises its own
                raise self._error(name, error) from None

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}"

    def _error(self, name: str, error: Exception) -> Any:
        return store_error(f"{self.url}/{name}", error, MirrorError)

    @staticmethod
    def _write_local(path: Path, pieces: Iterable[bytes]) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_name(f".{path.name}.{secrets.token_hex(8)}.partial")
        try:
            with unfinished.open("xb") as stream:  # not through a link that somebody put there
                for piece in pieces:
                    stream.write(piece)
            unfinished.replace(path)
        except BaseException:
            unfinished.unlink(missing_ok=True)
            raise


def _split(pieces: Iterable[bytes]) -> tuple[bytes, Iterator[bytes] | None]:
    """The first piece, and the others if there are any."""
    given = iter(pieces)
    first = next(given, b"")
    second = next(given, None)
    if second is None:
        return first, None

    def rest() -> Iterator[bytes]:
        yield second
        yield from given

    return first, rest()


def free_bytes(folder: Path) -> int:
    """Room on the disk that a folder lies on, or will lie on."""
    place = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    return shutil.disk_usage(place).free
