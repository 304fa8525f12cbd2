"""A folder of shards that were fetched, shared by any number of processes and runs.

``<key>.tar`` is a whole shard and ``<key>.index`` its index; the key is of the address, size and
version, so a shard that was changed is another one. A shard is fetched by the one process that
holds ``<key>.lock`` while the others wait, beside its place, and renamed when complete. When it is
opened its time is set anew; beyond the size of the folder the oldest go. Indexes have a bound of
their own; those of a set that was opened within the hour stay. A process that has one of these open
goes on reading it: the system keeps the bytes until it closes the file.

Files of any other name are not its own: a folder that holds one is refused (``cache_folder``).
"""

import contextlib
import os
import re
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import platformdirs

from ptft.data.cache_folder import CacheFolder
from ptft.data.tar.index import TarIndex, index_tar
from ptft.data.tar.index_file import check_index, load_index, read_head, save_index
from ptft.data.tar.remote import RemoteShard, download
from ptft.errors import DataError
from ptft.files.own import open_own
from ptft.speech import Tell, counted

__all__ = ["INDEX_BYTES", "ShardCache"]

INDEX_BYTES = 16 << 30
"""Of indexes, that a cache keeps: some 61 a sample."""

_WAITS = (1.0, 4.0)  # seconds before a failed download is tried again
_MANY = 200  # indexes that take more than a moment
_AT_ONCE = 8  # indexes fetched at once
_WHOLE_AT_ONCE = 2  # shards fetched at once to be indexed; each fills a disk and a network

_HOUR = 3600.0  # seconds
_TAR = re.compile(r"[0-9a-f]{32}\.tar")
_INDEX = re.compile(r"[0-9a-f]{32}\.index")
_NAMES = re.compile(
    r"[0-9a-f]{32}\.(tar|index|lock)|room\.lock|\.[0-9a-f]{32}\.(tar|index)(\.\d+)?\.partial"
)


class ShardCache:
    """The fetched shards of a folder.

    Args:
        folder: absent: ``ptft/shards`` in the platform's cache folder.
        limit: bytes of shards that it keeps.
    """

    def __init__(self, folder: str | None, limit: float) -> None:
        given = Path(folder).expanduser() if folder else platformdirs.user_cache_path("ptft")
        self.folder = given.absolute() if folder else given / "shards"
        self.limit = limit
        self._cache = CacheFolder(self.folder, kind="shards", names=_NAMES, key="data.cache")

    def fetch(self, shard: RemoteShard, *, wait: bool = True) -> Path | None:
        """The local copy of a shard, fetched if it is not there.

        Args:
            wait: for another process that is fetching it just now; else the answer is None.

        Raises:
            DataError: the store does not give it, it is not what was listed, or the disk is full.
        """
        path = self.folder / f"{shard.key}.tar"
        self._cache.ready()
        if self._touch(path):
            return path
        with self._cache.lock(f"{shard.key}.lock", wait=wait) as held:
            if not held:
                return None
            if not self._touch(path):
                self._download(shard, path)
        return path

    @staticmethod
    def open(path: Path) -> int:
        """A shard that was fetched, for reading: a plain file of this user's, and no link.

        Raises:
            OSError: it is not, or it is gone.
        """
        return open_own(path, os.O_RDONLY)

    def has(self, shard: RemoteShard) -> bool:
        """Whether a shard is here."""
        return self._cache.holds(f"{shard.key}.tar") is not None

    def index(self, shard: RemoteShard) -> TarIndex:
        """The index of a shard, from here, from beside the shard, or by fetching it.

        Raises:
            DataError: see ``fetch``; or the index is of another tar.
        """
        return load_index(self._index_file(shard), Path(shard.url))

    def prepare(self, shards: Sequence[RemoteShard], tell: Tell) -> list[Path]:
        """Index files of all these shards; those that are not here are fetched, or made.

        Args:
            tell: told what takes long.
        """
        self._cache.ready()
        absent = [shard for shard in shards if not self._has_index(shard)]
        bare = [shard for shard in absent if shard.index_version is None]
        beside = [shard for shard in absent if shard.index_version is not None]
        if len(beside) > _MANY:
            tell(f"fetching the indexes of {len(beside):,} shards")
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            list(counted(pool.map(self._index_file, beside), "fetching indexes", len(beside)))
        if bare:
            size = sum(shard.size for shard in bare) / 1e9
            tell(
                f"{len(bare):,} shards have no index beside them and are fetched to make one "
                f"({size:,.2f} GB, once); `ptft data index` writes it beside them"
            )
        with ThreadPoolExecutor(_WHOLE_AT_ONCE) as pool:
            list(counted(pool.map(self._index_file, bare), "indexing shards", len(bare)))
        paths = [self._index_path(shard) for shard in shards]
        for path in paths:
            self._touch(path)
        with self._cache.lock("room.lock"):  # of this set all have just been used
            self._cache.make_room(0, INDEX_BYTES, _INDEX, rest=_HOUR)
        return paths

    def _index_path(self, shard: RemoteShard) -> Path:
        return self.folder / f"{shard.index_key}.index"

    def _has_index(self, shard: RemoteShard) -> bool:
        return self._cache.holds(f"{shard.index_key}.index") is not None

    def _index_file(self, shard: RemoteShard) -> Path:
        self._cache.ready()
        path = self._index_path(shard)
        if self._has_index(shard):
            return path
        if shard.index_version is None:
            tar = self._held(shard)
            try:
                index = index_tar(tar, whole=True)
            except DataError as error:
                raise DataError(str(error).replace(str(tar), shard.url)) from None
            save_index(index, path)
            return path
        partial = self.folder / f".{path.name}.{os.getpid()}.partial"
        try:
            _fetch(shard.index_url, partial)
            size = read_head(partial).size
            load_index(partial, Path(shard.url))  # whole, before anybody relies on it
        except DataError as error:
            partial.unlink(missing_ok=True)
            raise DataError(str(error).replace(str(partial), shard.index_url)) from None
        if size != shard.size:
            raise DataError(
                f"{shard.index_url}: of a tar of {size} bytes; the shard has {shard.size}; "
                "`ptft data index --force` writes it again"
            )
        partial.replace(path)
        return path

    def _held(self, shard: RemoteShard) -> Path:
        path = self.fetch(shard)
        assert path is not None, "it was waited for"
        return path

    def _download(self, shard: RemoteShard, path: Path) -> None:
        partial = path.with_name(f".{path.name}.partial")  # one at a time, by the lock
        try:
            with self._room(shard.size):
                pass  # before it comes: a disk may have no more than the limit
            _fetch(shard.url, partial)
            size = partial.stat().st_size
            if size != shard.size:
                raise DataError(
                    f"{shard.url}: {size} bytes came; {shard.size} were listed; it was changed, "
                    "or the store cut it short"
                )
            index = self._index_path(shard)
            if self._has_index(shard):
                self._check(shard, index, partial)
            with self._room(shard.size):  # others may have come meanwhile
                partial.replace(path)
        except OSError as error:
            raise DataError(
                f"{self.folder}: {error.strerror or error}; data.cache names another folder"
            ) from None
        finally:
            partial.unlink(missing_ok=True)

    @staticmethod
    def _check(shard: RemoteShard, index: Path, tar: Path) -> None:
        try:
            check_index(load_index(index, tar), tar, index)
        except DataError as error:
            index.unlink(missing_ok=True)
            text = str(error).replace(str(index), shard.index_url).replace(tar.name, shard.url)
            raise DataError(text) from None

    @contextlib.contextmanager
    def _room(self, size: int) -> Iterator[None]:
        """Let the oldest shards go until another of ``size`` bytes has room; none other comes to
        its place inside."""
        with self._cache.lock("room.lock"):
            self._cache.make_room(size, self.limit, _TAR)
            yield

    def _touch(self, path: Path) -> bool:
        """Mark a file as just read, so that it is deleted later; False where it is not here."""
        if self._cache.holds(path.name) is None:
            return False
        try:
            os.utime(path, follow_symlinks=False)
        except FileNotFoundError:
            return False
        return True


def _fetch(url: str, target: Path) -> None:
    """Fetch a file to a place where nothing lies, or what a killed process left."""
    target.unlink(missing_ok=True)  # what was a link would be followed
    _with_patience(lambda: download(url, target))


def _with_patience(attempt: Callable[[], None]) -> None:
    for wait in _WAITS:
        try:
            return attempt()
        except DataError as error:
            if "no such file" in str(error):
                raise
            time.sleep(wait)
    return attempt()
