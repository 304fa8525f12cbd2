"""Shards in a store in memory or on a disk, and what is fetched of them."""

from pathlib import Path
from typing import Any

import pytest

from ptft.data.tar.index_file import write_index
from ptft.recipe.data import ShardsData
from tests.support.shards import picture, write_tar

SHARDS, EACH = 6, 8


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """Six shards of eight samples, one of them broken, with their indexes."""
    folder = tmp_path / "store"
    for number in range(SHARDS):
        files: dict[str, bytes] = {}
        for one in range(number * EACH, (number + 1) * EACH):
            files[f"{one:03d}.png"] = picture(one) if one != 19 else b"broken"
            files[f"{one:03d}.txt"] = f"grey {one}".encode()
        write_index(write_tar(folder / f"s-{number}.tar", files))
    return folder


def section(store: Path, cache: str = "cache", **values: Any) -> ShardsData:
    return ShardsData(
        train=f"file://{store}/s-*.tar",
        cache=str(store.parent / cache),
        **{"shuffle_shards": 2, "cache_gb": 1.0, **values},
    )


def fetched(folder: Path) -> int:
    return len(list(folder.glob("*.tar")))
