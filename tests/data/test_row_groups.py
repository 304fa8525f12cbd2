"""Large row groups are read in parts: the same samples in any order, in the memory of a part."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

from ptft.data import SampleSet, open_split
from ptft.data.parquet import file as parquet_file
from ptft.data.parquet import rows as parquet
from ptft.errors import SampleError
from ptft.recipe.data import TableData
from tests.support.shards import grey_rows

OPTIONS: dict[str, dict[str, Any]] = {
    "dictionaries": {},
    "pages": {"use_dictionary": False, "data_page_size": 100, "write_batch_size": 4},
    "prefixes": {
        "use_dictionary": False,
        "column_encoding": {"text": "DELTA_BYTE_ARRAY", "image.bytes": "DELTA_BYTE_ARRAY"},
    },
    "second version": {"compression": "zstd", "data_page_version": "2.0", "data_page_size": 500},
}


def write(path: Path, **options: Any) -> TableData:
    """Two row groups, of 150 and 50 rows; a third of the texts are one."""
    rows, rng = grey_rows(200), np.random.default_rng(0)
    for number, row in enumerate(rows):
        row["text"] = rng.bytes(20).hex() if number % 3 else "one for many"
    table = pyarrow.Table.from_pylist(rows)
    pyarrow.parquet.write_table(table, path, row_group_size=150, **options)
    return TableData(train=str(path), captions=["{text}", "{tags}"], label="kind", join="none")


def told(samples: SampleSet, numbers: list[int]) -> list[object]:
    found: list[object] = []
    for number in numbers:
        try:
            sample = samples[number]
        except SampleError as error:
            found.append(str(error))
        else:
            found.append((sample.name, sample.captions, sample.label, sample.image.tobytes()))
    return found


@pytest.mark.parametrize("kept", [1 << 20, 3000])
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_samples_are_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any], kept: int
) -> None:
    section = write(tmp_path / "a.parquet", **options)
    numbers = np.random.default_rng(1).permutation(200).tolist()
    expected = told(open_split(section, "train"), numbers)
    assert not any(isinstance(one, str) for one in expected)
    monkeypatch.setattr(parquet, "AT_ONCE", 800)
    monkeypatch.setattr(parquet, "KEPT_BYTES", kept)
    samples = open_split(section, "train")
    assert told(samples, numbers) == expected
    again = pickle.loads(pickle.dumps(samples))  # as another process gets it, in the midst of it
    assert told(again, numbers[:20]) == expected[:20]
    section = section.model_copy(update={"join": "bytes"})
    assert len(open_split(section, "train")) == 200, "no two pictures are equal, part by part"


def test_of_a_damaged_group_the_parts_before_are_read_whatever_was_read_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.parquet"
    options = {"use_dictionary": False, "data_page_size": 500, "write_batch_size": 4}
    section = write(path, compression="zstd", **options)
    chunk = pyarrow.parquet.ParquetFile(path).metadata.row_group(0).column(0)
    data = bytearray(path.read_bytes())
    end = chunk.data_page_offset + chunk.total_compressed_size
    data[end - 60 : end - 20] = bytes(40)  # within the last page
    path.write_bytes(bytes(data))
    assert all(isinstance(one, str) for one in told(open_split(section, "train"), [0, 149]))
    monkeypatch.setattr(parquet, "AT_ONCE", 800)
    forwards = told(open_split(section, "train"), list(range(200)))
    backwards = told(open_split(section, "train"), list(range(199, -1, -1)))
    assert forwards == backwards[::-1]
    broken = [number for number, one in enumerate(forwards) if isinstance(one, str)]
    assert 0 < len(broken) < 100 and broken == list(range(broken[0], 150))
    assert all("a.parquet: row group 0: " in str(forwards[number]) for number in broken)


def test_a_part_that_unpacks_to_too_much_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A long text of a dictionary, of which each row has a copy."""
    rows = [{"text": "x" * 20_000 if n % 2 else f"{n} " + "y" * 40} for n in range(2000)]
    path = tmp_path / "a.parquet"
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    section = TableData(train=str(path), image=None, captions=["{text}"])
    monkeypatch.setattr(parquet, "AT_ONCE", 50_000)
    assert open_split(section, "train").captions(1) == ("x" * 20_000,)
    monkeypatch.setattr(parquet_file, "PART_BYTES", 1 << 20)
    with pytest.raises(SampleError, match=r"row group 0: more than 1,048,576 bytes unpacked"):
        open_split(section, "train").captions(1)
