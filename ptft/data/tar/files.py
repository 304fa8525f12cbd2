"""Tars by number, local and fetched ones alike: their indexes, and the bytes in them."""

import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from ptft.data.hashing import digest_of
from ptft.data.kept import MANY, Arrays, read_texts, remembered, settled, state_of, texts
from ptft.data.tar.index import FileState, TarIndex, index_tar
from ptft.data.tar.index_file import index_path, load_index, read_head, read_index
from ptft.data.tar.remote import RemoteShard
from ptft.data.tar.shard_cache import ShardCache
from ptft.errors import DataError, SampleError
from ptft.files.picture_names import PassedOver
from ptft.speech import Tell, counted

__all__ = ["LARGE_INDEXES", "ShardSource", "TarAhead", "TarFiles", "TarIndexes"]

ShardSource = Path | RemoteShard

_OPEN = 64  # files held open at once; a process may often have no more than 1,024
_INDEXES = 256  # mapped at once; each holds a file open
LARGE_INDEXES = 64 * MANY  # bytes of indexes from which on what they say is kept
_AGAIN = 5  # times that a shard is fetched which other processes let go before it could be opened


class TarIndexes:
    """The indexes of tars, mapped from their files when they are needed; those of local tars that
    no file holds are in memory.

    Args:
        sources: the tars.
        cache: where fetched ones lie; None where all are local.
        tell: told what takes long.

    Attributes:
        counts: samples of each tar, int64.
        extensions: of all files.
        passed_over: files of local tars that belong to no sample.
        state: what tells the tars and their indexes from others; None: nothing is kept of them.
        labelled: every fetched tar that has classes has them in its index.

    Raises:
        DataError: a tar or its index is broken; named.
    """

    def __init__(
        self, sources: Sequence[ShardSource], cache: ShardCache | None, tell: Tell
    ) -> None:
        self._sources = list(sources)
        self._cache = cache
        self._kept: dict[int, TarIndex] = {}
        self.extensions: set[str] = set()
        self.passed_over = PassedOver()
        self.labelled = True
        self.counts = np.zeros(len(sources), np.int64)
        self._walked: dict[int, TarIndex] = {}
        self._files: dict[int, tuple[Path, FileState]] = {}
        self.state = _state_of(sources)
        heads = self.remembered(self._read, "heads")
        self.counts, self.extensions = heads["counts"], set(read_texts(heads, "extensions"))
        if self.state is not None:
            self._files = dict(enumerate(map(_index_state, sources)))
        if cache is not None:
            self._prepare(cache, tell)

    def remembered(self, make: Callable[[], Arrays], *what: object) -> Arrays:
        """What was found in these tars when they were opened before, else what ``make`` finds."""
        return make() if self.state is None else remembered(make, "shards", *what, self.state)

    def _read(self) -> Arrays:
        """Counts and extensions of local tars, whose indexes are read and checked."""
        sources = counted(self._sources, "opening shards", len(self._sources))
        for number, source in enumerate(sources):
            if isinstance(source, Path):
                index = read_index(source) or index_tar(source)
                if index.file is None:
                    self._walked[number] = index
                else:
                    self._files[number] = index.file
                self.counts[number] = len(index)
                self.extensions |= set(index.extensions)
                self.passed_over.merge(index.passed_over)
        return {"counts": self.counts, **texts(extensions=sorted(self.extensions))}

    def _prepare(self, cache: ShardCache, tell: Tell) -> None:
        sources = enumerate(self._sources)
        remote = {number: source for number, source in sources if isinstance(source, RemoteShard)}
        paths = cache.prepare(list(remote.values()), tell)
        for number, path in zip(remote, paths, strict=True):
            head = read_head(path)
            self.counts[number] = head.count
            self.extensions |= set(head.extensions)
            self.labelled &= head.labelled or "cls" not in head.extensions

    def __getitem__(self, number: int) -> TarIndex:
        if number in self._walked:
            return self._walked[number]
        index = self._kept.pop(number, None)
        if index is None:
            source = self._sources[number]
            if isinstance(source, Path):
                path, state = self._files[number]
                index = load_index(path, source, state)
            else:
                assert self._cache is not None, "what is fetched has a place"
                index = self._cache.index(source)
        self._kept[number] = index  # last in the dict: most recently used
        while len(self._kept) > _INDEXES:
            del self._kept[next(iter(self._kept))]
        return index

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_kept": {}}


def _index_state(source: ShardSource) -> tuple[Path, FileState]:
    assert isinstance(source, Path), "others have no state"
    path = index_path(source)
    state = path.stat()
    return path, (state.st_size, state.st_mtime_ns, state.st_ino)


def _state_of(sources: Sequence[ShardSource]) -> str | None:
    """What tells these tars and their indexes from others; None where something of them has none,
    is soon read again, or has just been written."""
    looked, states = time.time(), []
    for source in sources:
        if not isinstance(source, Path):
            return None
        tar, index = state_of(source), state_of(index_path(source))
        if tar is None or index is None:
            return None
        states += [tar, index]
    if sum(state[2] for state in states[1::2]) < LARGE_INDEXES or not settled(states, looked):
        return None
    return digest_of(*states)


class TarFiles:
    """Tars opened when they are first read, the least recently read closed beyond ``most``.

    Args:
        sources: the tars.
        cache: where fetched ones lie; None where all are local.
        most: files held open at once.
    """

    def __init__(
        self, sources: Sequence[ShardSource], cache: ShardCache | None, most: int = _OPEN
    ) -> None:
        self._sources = list(sources)
        self._cache = cache
        self._most = most
        self._open: dict[int, int] = {}

    def read(self, number: int, offset: int, size: int) -> bytes:
        """Read exactly ``size`` bytes of tar ``number``, from ``offset`` on.

        Raises:
            SampleError: the file no longer has them.
            DataError: a shard cannot be fetched.
        """
        source = self._sources[number]
        name = str(source) if isinstance(source, Path) else source.url
        try:
            with self._file(number) as file:
                pieces, left = [], size
                while left:
                    piece = os.pread(file, left, offset + size - left)
                    if not piece:
                        raise SampleError(
                            f"{name}: offset {offset}: it became shorter", "unreadable"
                        )
                    pieces.append(piece)
                    left -= len(piece)
        except OSError as error:
            raise SampleError(
                f"{name}: offset {offset}: {error.strerror or error}", "unreadable"
            ) from None
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    @contextmanager
    def _file(self, number: int) -> Iterator[int]:
        file = self._open.pop(number, None)
        if file is None:
            file = self._opened(self._sources[number])
        self._open[number] = file  # last in the dict: most recently read
        while len(self._open) > self._most:
            os.close(self._open.pop(next(iter(self._open))))
        yield file

    def _opened(self, source: ShardSource) -> int:
        flags = os.O_RDONLY | getattr(os, "O_CLOEXEC", 0)
        if isinstance(source, Path):
            return os.open(source, flags)
        cache = self._cache
        assert cache is not None, "what is fetched has a place"
        for _ in range(_AGAIN):
            path = cache.fetch(source)
            assert path is not None, "it was waited for"
            try:
                return cache.open(path)
            except FileNotFoundError:
                continue  # let go by another process in between
        raise DataError(
            f"{source.url}: let go as often as it was fetched; data.cache_gb is too small for "
            f"what reads from {cache.folder}"
        )

    def __reduce__(self) -> tuple[type["TarFiles"], tuple[Any, ...]]:
        return TarFiles, (self._sources, self._cache, self._most)  # a process opens its own

    def close(self) -> None:
        """Close what is open; it is opened again when it is read."""
        for file in self._open.values():
            os.close(file)
        self._open = {}

    def __del__(self) -> None:
        self.close()


class TarAhead:
    """Fetches shards in a thread of its own, before their samples are asked for.

    What another process is fetching is left to it, so that several share the work.
    """

    def __init__(self, cache: ShardCache) -> None:
        self._cache = cache
        self._coming: list[RemoteShard] = []
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()

    def expect(self, shards: Sequence[RemoteShard]) -> None:
        """Fetch these shards, in order, in place of those that were announced before."""
        with self._lock:
            self._coming = list(shards)
            if self._coming and self._thread is None:
                self._thread = threading.Thread(target=self._run, name="shards", daemon=True)
                self._thread.start()

    def _run(self) -> None:
        while True:
            with self._lock:
                if not self._coming:
                    self._thread = None
                    return
                shard = self._coming.pop(0)
            try:
                self._cache.fetch(shard, wait=False)
            except DataError:
                continue  # whoever needs it tries again, and says what is wrong

    def __reduce__(self) -> tuple[type["TarAhead"], tuple[ShardCache]]:
        return TarAhead, (self._cache,)
