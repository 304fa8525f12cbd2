"""Shards that lie elsewhere: which ones an address means, and what is known of each before it is
fetched. fsspec speaks to the stores."""

import datetime
import errno
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ptft.data.hashing import digest_of
from ptft.data.tar.index_file import INDEX_SUFFIX
from ptft.errors import DataError, RecipeError
from ptft.files.store import open_store, store_error
from ptft.recipe.braces import MAX_TEXTS
from ptft.recipe.paths import check_url, expand_braces, too_many

__all__ = ["RemoteShard", "download", "list_shards", "upload"]

_VERSIONS = (  # the last is all that a store in memory says
    *("ETag", "etag", "sha256", "md5Hash", "generation", "blob_id", "LastModified", "mtime"),
    "created",
)
_MAGIC = frozenset("*?[")
_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@dataclass(frozen=True)
class RemoteShard:
    """A tar elsewhere.

    Attributes:
        url: its address.
        size: in bytes.
        version: what the store gives to tell one state of it from another (an entity tag, a time).
        index_version: of the index beside it; None where there is none.
    """

    url: str
    size: int
    version: str
    index_version: str | None

    @property
    def key(self) -> str:
        """Name this state of the shard, for file names."""
        return digest_of(self.url, self.size, self.version)[:32]

    @property
    def index_key(self) -> str:
        """Name this state of the shard and of the index beside it, for file names."""
        return digest_of(self.url, self.size, self.version, self.index_version)[:32]

    @property
    def index_url(self) -> str:
        """Where the index beside it lies."""
        return self.url + INDEX_SUFFIX


def list_shards(patterns: Sequence[str], key: str) -> list[RemoteShard]:
    """The shards that addresses mean, in the order given, globs sorted.

    Args:
        patterns: with or without braces, ``*``, ``?`` and ``[...]``.
        key: of the recipe, for messages.

    Raises:
        RecipeError: a protocol is not allowed, or a pattern matches nothing.
        MissingExtraError: the store's package is not installed.
        DataError: the store does not answer, or not to us.
    """
    found: list[RemoteShard] = []
    folders: dict[str, dict[str, Mapping[str, Any]]] = {}
    for pattern in patterns:
        for url in expand_braces(pattern, key):
            check_url(url, key)
            found += _find(url, folders, key)
            if len(found) > MAX_TEXTS:
                raise too_many(pattern, key)
    return found


def download(url: str, target: Path) -> None:
    """Fetch a file whole. Raises DataError where the store does not give it, OSError where the disk
    has no room."""
    system, path = open_store(url, DataError)
    try:
        system.get_file(path, str(target))
    except Exception as error:  # each store raises its own
        if isinstance(error, OSError) and error.errno in _DISK:
            raise
        raise store_error(url, error, DataError) from None


def upload(source: Path, url: str) -> None:
    """Store a file. Raises DataError where the store does not take it."""
    system, path = open_store(url, DataError)
    try:
        system.put_file(str(source), path)
        system.invalidate_cache()
    except Exception as error:  # each store raises its own
        raise store_error(url, error, DataError) from None


def _find(
    url: str, folders: dict[str, dict[str, Mapping[str, Any]]], key: str
) -> list[RemoteShard]:
    system, path = open_store(url, DataError)
    try:
        paths = sorted(map(str, system.glob(path))) if _MAGIC & set(path) else [path]
        shards = []
        for one in paths:
            folder = system._parent(one)
            if folder not in folders:
                # one listing for all the shards of a folder, in place of a question for each
                entries = system.ls(folder, detail=True, refresh=True)
                folders[folder] = {entry["name"].rstrip("/"): entry for entry in entries}
            shard = _shard(system, one, folders[folder])
            if shard is not None:
                shards.append(shard)
    except FileNotFoundError:
        shards = []
    except Exception as error:  # each store raises its own
        raise store_error(url, error, DataError) from None
    if not shards:
        raise RecipeError(f"{key}: {url!r}: no such file")
    return shards


def _shard(system: Any, path: str, entries: Mapping[str, Mapping[str, Any]]) -> RemoteShard | None:
    entry = entries.get(path) or system.info(path)  # some stores write a name in two ways
    if entry.get("type", "file") != "file" or path.endswith(INDEX_SUFFIX):
        return None
    beside = entries.get(path + INDEX_SUFFIX)
    return RemoteShard(
        url=system.unstrip_protocol(path),
        size=int(entry["size"]),
        version=_version(entry),
        index_version=None if beside is None else f"{beside['size']} {_version(beside)}",
    )


def _version(entry: Mapping[str, Any]) -> str:
    """What a store says of a file's state: the first that it has of the known kinds."""
    lfs = entry.get("lfs") or {}
    for name in _VERSIONS:
        value = entry.get(name) or lfs.get(name)
        if value is not None:
            return value.isoformat() if isinstance(value, datetime.datetime) else str(value)
    return ""
