"""Write the index of a shard beside it, wherever that is."""

import math
import tempfile
from pathlib import Path
from typing import Any

from ptft.data.tar.files import ShardSource
from ptft.data.tar.index import index_tar
from ptft.data.tar.index_file import index_path, read_index, save_index, write_index
from ptft.data.tar.remote import RemoteShard, upload
from ptft.data.tar.shard_cache import ShardCache
from ptft.errors import DataError

__all__ = ["index_shard"]


def index_shard(source: ShardSource, *, force: bool) -> dict[str, Any]:
    """Write the index of a shard where there is none that fits. One that lies elsewhere is fetched
    for that, and let go again.

    Args:
        force: write it in any case.

    Returns:
        ``index`` (where it is), ``samples`` and ``written``.

    Raises:
        DataError: the shard is broken, or the index cannot be stored beside it.
    """
    if isinstance(source, RemoteShard):
        return _index_remote(source, force)
    try:
        found = None if force else read_index(source)
    except DataError:
        found = None  # of another tar, or broken: what this is for
    index = found or write_index(source)
    return {"index": str(index_path(source)), "samples": len(index), "written": found is None}


def _index_remote(shard: RemoteShard, force: bool) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        cache = ShardCache(folder, math.inf)
        index = None
        if shard.index_version is not None and not force:
            try:
                index = cache.index(shard)
            except DataError:
                index = None  # of another tar, or broken
        written = index is None
        if index is None:
            tar = cache.fetch(shard)
            assert tar is not None, "it was waited for"
            try:
                index = index_tar(tar, whole=True)
            except DataError as error:
                raise DataError(str(error).replace(str(tar), shard.url)) from None
            save_index(index, Path(folder) / "index")
            upload(Path(folder) / "index", shard.index_url)
    return {"index": shard.index_url, "samples": len(index), "written": written}
