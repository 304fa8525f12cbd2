"""Large arrays reach another process as paths, and a cache of them stays within its bounds."""

import os
import pickle
import time
from pathlib import Path

import numpy as np
import pytest

from ptft.data import mapped
from ptft.data.cache_folder import CacheFolder
from ptft.data.mapped import pickle_mapped
from ptft.data.reading.order import Order


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(mapped.platformdirs, "user_cache_path", lambda name: tmp_path / name)
    return tmp_path / "ptft" / "columns"


def large(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 9, 200_000)


def test_a_large_array_is_pickled_as_a_path(cache: Path) -> None:
    array = large()
    value = {"large": array, "small": np.arange(5), "order": Order(200_000, 3, 100, array)}
    pickled = pickle_mapped(value)
    assert len(pickled) < 2000
    found = pickle.loads(pickled)
    assert np.array_equal(found["large"], array) and found["large"].dtype == array.dtype
    assert np.array_equal(found["small"], np.arange(5))
    assert np.array_equal(found["order"].blocks, array)
    assert found["large"].base is not None and not found["large"].flags.writeable
    assert len(list(cache.glob("*.bin"))) == 1  # equal ones are one file
    pickle_mapped({"again": large(), "other": large(1)})
    assert len(list(cache.glob("*.bin"))) == 2
    assert all(path.stat().st_mode & 0o077 == 0 for path in (cache, *cache.glob("*.bin")))


def test_an_array_in_columns_or_of_texts_comes_back_as_it_is() -> None:
    both = np.asfortranarray(large().reshape(1000, 200))
    names = np.array(["a", "bc"] * 200_000)
    objects = np.array([{"a": 1}] * 200_000)
    found = pickle.loads(pickle_mapped([both, both[:, ::2], names, objects]))
    for one, other in zip(found, [both, both[:, ::2], names, objects], strict=True):
        assert one.dtype == other.dtype and np.array_equal(one, other)


def test_where_no_file_can_be_kept_the_array_itself_is_pickled(cache: Path) -> None:
    cache.mkdir(parents=True)
    (cache / "letters.txt").write_text("dear to me")
    array = large()
    assert np.array_equal(pickle.loads(pickle_mapped(array)), array)
    assert [path.name for path in cache.iterdir()] == ["letters.txt"]


def test_a_file_that_is_gone_is_written_again(cache: Path) -> None:
    array = large()
    pickle_mapped(array)
    next(cache.glob("*.bin")).unlink()
    assert np.array_equal(pickle.loads(pickle_mapped(array)), array)


def test_what_was_used_least_recently_goes_and_nothing_that_may_be_opened(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arrays = [large(seed) for seed in range(3)]
    monkeypatch.setattr(mapped, "LIMIT", 2 * arrays[0].nbytes)
    names, long_ago = [], time.time() - 7200
    opened = pickle.loads(pickle_mapped(arrays[0]))
    for age, array in enumerate(arrays):
        pickle_mapped(array)
        name = ({path.name for path in cache.glob("*.bin")} - set(names)).pop()
        names.append(name)
        if age < 2:
            os.utime(cache / name, (long_ago + age, long_ago + age))
    assert {path.name for path in cache.glob("*.bin")} == set(names[1:])
    assert np.array_equal(opened, arrays[0])  # whoever has it open goes on reading
    pickle_mapped(large(9))  # the second is old, the third is not
    assert names[1] not in {path.name for path in cache.glob("*.bin")}
    pickle_mapped(large(10))
    assert (cache / names[2]).is_file()


def test_room_is_made_of_its_own_files_alone(cache: Path) -> None:
    folder = CacheFolder(cache, kind="columns", names=mapped._NAMES, key="a")
    folder.ready()
    for name in ("letters.bin", f"{'a' * 32}.txt", f"{'b' * 32}.bin"):
        (cache / name).write_bytes(b"1234")
        os.utime(cache / name, (1, 1))
    (cache / f"{'c' * 32}.bin").symlink_to(cache / "letters.bin")
    folder.make_room(1, 0, mapped._FILE, rest=3600.0)
    left = {path.name for path in cache.iterdir()} - {".ptft-cache"}
    assert left == {"letters.bin", f"{'a' * 32}.txt", f"{'c' * 32}.bin"}
