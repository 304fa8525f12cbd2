"""What footers say, as arrays: the same as the footers themselves, of files of any make."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

from ptft.data import open_split
from ptft.data.parquet import footer
from ptft.data.parquet import rows as parquet
from ptft.data.parquet.footer import Chunk, Group, read_footer
from ptft.data.parquet.layout import Layout
from ptft.errors import SampleError
from ptft.recipe.data import TableData
from tests.support.saved_tables import grey_of
from tests.support.shards import grey_rows, picture, write_parquet


def write_all(home: Path) -> list[Path]:
    """Files of one table: columns in another order and of another form, and groups of no row."""
    paths = [home / f"{number}.parquet" for number in range(4)]
    write_parquet(paths[0], 25)
    plain = [row | {"image": row["image"]["bytes"]} for row in grey_rows(12, 25)]
    table = pyarrow.Table.from_pylist(plain)
    table = table.select(["tags", "kind", "image", "text"])
    pyarrow.parquet.write_table(table, paths[1], row_group_size=5, use_dictionary=False)
    pyarrow.parquet.write_table(table.slice(0, 0), paths[2])
    with pyarrow.parquet.ParquetWriter(paths[3], table.schema) as writer:
        writer.write_table(table.slice(0, 0))
        writer.write_table(table.slice(3, 4))
        writer.write_table(table.slice(0, 0))
    return paths


def test_groups_are_as_the_footers_have_them(tmp_path: Path) -> None:
    paths = write_all(tmp_path)
    found = Layout(paths)
    expected = [(file, group) for file, path in enumerate(paths) for group in read_footer(path)]
    columns = ["tags", "image"]
    places: dict[int, int] = dict.fromkeys(range(len(paths)), 0)
    assert found.rows_g.tolist() == [group.rows for _, group in expected]
    for number, (file, group) in enumerate(expected):
        assert found.place(number) == (file, places[file])
        places[file] += 1
        mine, size = found.group(number, columns), 0
        assert (mine.rows, mine.paths) == (group.rows, group.paths)
        for place, path in enumerate(group.paths):
            if path[0] in columns:
                assert mine.chunk(place) == group.chunk(place)
                size += group.chunk(place).size
        assert found.sizes(columns)[number] == size
        assert group.paths in [kind.paths for kind in found.kinds(file)]


def test_rows_of_all_of_them_are_read(tmp_path: Path) -> None:
    write_all(tmp_path)
    section = TableData(train=str(tmp_path / "*.parquet"), captions=["{text}"], join="none")
    samples = open_split(section, "train")
    assert len(samples) == 25 + 12 + 4
    expected = [*range(37), *range(28, 32)]
    assert [grey_of(samples, index) for index in range(41)] == expected
    assert [samples.captions(index)[0] for index in range(41)] == [f"grey {n}" for n in expected]
    assert samples.name(37) == "3.parquet/1/0"


def test_a_file_that_changed_since_is_not_read(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "a.parquet", 25)
    samples = open_split(TableData(train=str(path), join="none"), "train")
    write_parquet(path, 25, first=1)
    with pytest.raises(SampleError, match=r"a\.parquet: .*it has changed since this set was open"):
        samples[3]


def test_a_chunk_of_more_bytes_than_a_number_holds_is_refused_when_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_parquet(tmp_path / "a.parquet", 25)
    true = Group.chunk

    def chunk(group: Group, number: int) -> Chunk:
        return true(group, number)._replace(packed=1 << 69, size=(1 << 64) + 5)

    monkeypatch.setattr(footer.Group, "chunk", chunk)
    samples = open_split(TableData(train=str(path), join="none"), "train")
    with pytest.raises(SampleError, match=r"it lies outside the file"):
        samples[3]


def test_few_footers_are_held_where_they_are_large(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows: list[dict[str, Any]] = grey_rows(30)
    for number in range(3):
        table = pyarrow.Table.from_pylist(rows[10 * number : 10 * number + 10])
        pyarrow.parquet.write_table(table, tmp_path / f"{number}.parquet", row_group_size=1)
    monkeypatch.setattr(parquet, "OPEN_BYTES", 2 * len(footer.footer_bytes(tmp_path / "0.parquet")))
    reader = parquet.ParquetRows(sorted(tmp_path.glob("*.parquet")), None)
    reader.use("image", ["text"])
    for index in np.random.default_rng(0).permutation(30).tolist():
        assert reader.picture(index)["bytes"] == picture(index)
        assert reader.fields(index)["text"] == f"grey {index}"
        assert len(reader._files) <= 2
