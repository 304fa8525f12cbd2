"""Parquet of a stranger: what a few bytes say that they stand for is held against their size."""

import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

from ptft.data.fields.templates import MAX_CAPTION
from ptft.data.open import open_split
from ptft.data.parquet import footer, pages
from ptft.data.parquet.file import check_indices, open_parquet, read_group, row_groups
from ptft.data.parquet.footer import read_footer
from ptft.data.parquet.pages import walk_pages
from ptft.errors import DataError, SampleError
from ptft.recipe.data import FolderData, TableData
from tests.support.bounded import room

__all__ = ["room"]  # a fixture


def _opened(path: Path, **values: Any) -> Any:
    section = TableData(train=str(path), image=None, captions=["{text}"], **values)
    return open_split(section, "train")


def _write(path: Path, column: Any, **options: Any) -> Path:
    table = pyarrow.table({"text": column})
    pyarrow.parquet.write_table(table, path, **{"compression": "zstd", **options})
    return path


def test_rows_of_nothing_are_refused(tmp_path: Path) -> None:
    path = _write(tmp_path / "a.parquet", pyarrow.nulls(20_000_000, pyarrow.string()))
    with pytest.raises(DataError, match=r"20,000,000 rows in .* bytes; allowed: "):
        _opened(path)
    (tmp_path / "f").mkdir()
    path.rename(tmp_path / "f/metadata.parquet")
    with pytest.raises(DataError, match="20,000,000 rows in"):
        open_split(FolderData(train=str(tmp_path / "f")), "train")


def test_a_text_that_every_row_names_is_one_text(tmp_path: Path) -> None:
    """4,000 rows of half a megabyte in 500 bytes: any row is read, all together are refused."""
    rows = pyarrow.DictionaryArray.from_arrays(
        pyarrow.array(np.zeros(40_000, np.int32)), ["x" * 500_000]
    )
    options = {"dictionary_pagesize_limit": 1 << 30, "row_group_size": 1 << 20}
    path = _write(tmp_path / "a.parquet", rows, **options)
    assert path.stat().st_size < 1000
    assert len(_opened(path).captions(39_999)[0]) == MAX_CAPTION
    with pytest.raises(DataError, match="column text: 20,000,000,000 bytes of values; allowed"):
        _opened(path, label="text")


@pytest.mark.parametrize(
    ("column", "options", "said"),
    [
        (["x" * 500_000] * 400, {"use_dictionary": False}, "bytes unpacked of .* 256 to 1"),
        (
            ["x" * 500_000] * 400,
            {"use_dictionary": False, "column_encoding": {"text": "DELTA_BYTE_ARRAY"}},
            "row group 0: more than .* bytes unpacked",
        ),
        ([["x"] * 6_000_000], {}, "6,000,000 values; allowed in a file of"),
        (
            pyarrow.array([b"x" * 500_000] * 400, pyarrow.binary(500_000)),
            {},
            "bytes unpacked of .* 256 to 1",
        ),
        ([["x" * 500_000] * 400], {}, "column text: 200,5.* bytes of values; allowed"),
    ],
    ids=["zeros", "prefixes", "a list", "fixed width", "a list of one text"],
)
def test_what_unpacks_to_too_much_is_refused(
    column: Any, options: dict[str, Any], said: str, tmp_path: Path
) -> None:
    path = _write(tmp_path / "a.parquet", column, **options)
    with pytest.raises(SampleError, match=said):
        _opened(path).captions(0)


def test_pages_that_say_other_than_the_footer_are_refused(tmp_path: Path) -> None:
    path = _write(tmp_path / "a.parquet", ["a"] * 100, compression="none", use_dictionary=False)
    data = bytearray(path.read_bytes())
    chunk = pyarrow.parquet.ParquetFile(path).metadata.row_group(0).column(0)
    start, size = chunk.data_page_offset, chunk.total_compressed_size
    place = data.index(b"\xc8\x01", start)  # 100, as a Thrift number, in the header of the page
    data[place : place + 2] = b"\xca\x01"
    path.write_bytes(data)
    with path.open("rb") as stream:
        assert [page.values for page in walk_pages(stream.fileno(), start, size)] == [101]
    with pytest.raises(SampleError, match="its pages have 101 values, which is not its count"):
        _opened(path).captions(0)


def test_ordinary_tables_are_read_as_pyarrow_reads_them(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    columns = {
        "text": [f"caption {n % 97}" if n % 5 else None for n in range(3000)],
        "lists": [[f"a{n}", "b"] if n % 3 else [] for n in range(3000)],
        "image": [{"bytes": random.bytes(300), "path": None} for _ in range(3000)],
        "number": [n / 7 if n % 4 else None for n in range(3000)],
        "flag": [bool(n % 2) for n in range(3000)],
    }
    table = pyarrow.table(columns)
    for version in ("1.0", "2.0"):
        for codec in ("none", "snappy", "zstd", "gzip"):
            path = tmp_path / f"{version}-{codec}.parquet"
            pyarrow.parquet.write_table(
                table,
                path,
                compression=codec,
                data_page_version=version,
                row_group_size=700,
                data_page_size=2000,
            )
            groups = row_groups(path)
            with open_parquet(path, groups) as file:
                parts = [read_group(file, path, group, n, None) for n, group in enumerate(groups)]
            assert [row for part in parts for row in part.to_pylist()] == table.to_pylist()
    prefixed = tmp_path / "prefixed.parquet"
    pyarrow.parquet.write_table(
        table.select(["text"]),
        prefixed,
        use_dictionary=False,
        column_encoding={"text": "DELTA_BYTE_ARRAY"},
    )
    with open_parquet(prefixed, row_groups(prefixed)) as file:
        read = read_group(file, prefixed, row_groups(prefixed)[0], 0, ["text"])
        assert read["text"].to_pylist() == columns["text"]


def test_a_cell_that_is_no_text_is_one_sample(tmp_path: Path) -> None:
    path = _write(tmp_path / "a.parquet", ["good", "bad!"], compression="none")
    path.write_bytes(path.read_bytes().replace(b"bad!", b"\xff\xfe\xfd!"))
    samples = _opened(path)
    assert samples.captions(0) == ("good",)
    with pytest.raises(SampleError, match="text: 'utf-8' codec can't decode"):
        samples.captions(1)
    with pytest.raises(DataError, match="'utf-8' codec can't decode"):
        _opened(path, label="text")


def test_a_number_beyond_its_dictionary_is_told(tmp_path: Path) -> None:
    indices = pyarrow.array([0, 1, 77], pyarrow.int32())
    broken = pyarrow.DictionaryArray.from_arrays(indices, ["a", "b"], safe=False)
    for array in (
        broken,
        pyarrow.StructArray.from_arrays([broken], ["bytes"]),
        pyarrow.ListArray.from_arrays([0, 3], broken),
    ):
        with pytest.raises(ValueError, match="beyond its dictionary"):
            check_indices(array)
    check_indices(broken[:2])


def test_a_footer_says_what_pyarrow_says(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    table = pyarrow.table({"a": [1, None, 3] * 40, "b": [["x"], [], None] * 40, "c": ["y"] * 120})
    pyarrow.parquet.write_table(table, path, row_group_size=50)
    metadata = pyarrow.parquet.ParquetFile(path).metadata
    for number, group in enumerate(read_footer(path)):
        theirs = metadata.row_group(number)
        assert group.rows == theirs.num_rows and len(group.paths) == theirs.num_columns
        for place, path in enumerate(group.paths):
            chunk, column = group.chunk(place), theirs.column(place)
            assert ".".join(path) == ".".join(chunk.path) == column.path_in_schema
            assert chunk.values == column.num_values
            assert chunk.size == column.total_uncompressed_size
            assert chunk.packed == column.total_compressed_size
            starts = (column.dictionary_page_offset, column.data_page_offset)
            assert chunk.start == min(start for start in starts if start is not None)


def test_fewer_rows_than_a_group_says_are_told(tmp_path: Path) -> None:
    path = _write(tmp_path / "a.parquet", pyarrow.array([["x", "y"], ["z"]]))
    group = replace(row_groups(path)[0], rows=3)
    with (
        open_parquet(path, [group]) as file,
        pytest.raises(DataError, match="2 rows where it says 3"),
    ):
        read_group(file, path, group, 0, ["text"])


def test_a_footer_that_contradicts_itself_does_not_end_the_process(tmp_path: Path) -> None:
    """pyarrow's accessors let an exception of C++ through, at which the process is ended."""
    path = _write(tmp_path / "a.parquet", ["x", None])
    optional, required = b"\x25\x02\x18\x04text", b"\x25\x00\x18\x04text"
    data = path.read_bytes()
    assert data.count(optional) == 1
    path.write_bytes(data.replace(optional, required))
    script = (
        "import sys; from tests.data.test_parquet_bounds import _opened\n"
        "from pathlib import Path; from ptft.errors import PtftError\n"
        "try: _opened(Path(sys.argv[1])).captions(0)\n"
        "except PtftError as error: print('told:', error)\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", script, str(path)], capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr[-500:]
    assert ended.stdout.startswith("told: ") and "mismatch" in ended.stdout


def _changed(data: bytes, random: np.random.Generator) -> bytes:
    """Up to three bytes of it other ones."""
    found = bytearray(data)
    for _ in range(int(random.integers(0, 4))):
        found[int(random.integers(len(found)))] = int(random.integers(256))
    return bytes(found)


def test_what_is_read_at_once_is_what_is_read_value_by_value(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Footers and headers of pages by the patterns, and without them, many damaged."""
    texts = [f"caption {number % 7}" * (number % 9) for number in range(400)]
    lists = [[number / 3] * (number % 3) for number in range(400)]
    table = pyarrow.table({"text": texts, "list": lists, "number": np.arange(400)})
    path = tmp_path / "a.parquet"
    pyarrow.parquet.write_table(table, path, row_group_size=60, write_page_index=True)
    whole = path.read_bytes()
    length = int.from_bytes(whole[-8:-4], "little")
    end = whole[-8 - length : -8]
    headers = [
        whole[chunk.start : chunk.start + 200]
        for group in read_footer(path)
        for chunk in map(group.chunk, range(len(group.paths)))
    ]

    def read(number: int) -> object:
        random = np.random.default_rng(number)
        try:
            if number % 2:
                return pages.parse_header(_changed(headers[number % len(headers)], random))
            changed = _changed(end, random)
            path.write_bytes(b"PAR1" + changed + len(changed).to_bytes(4, "little") + b"PAR1")
            return [
                (group.rows, group.paths, *map(group.chunk, range(len(group.paths))))
                for group in read_footer(path)
            ]
        except (ValueError, IndexError) as error:
            return str(error)

    usual = [read(number) for number in range(4000)]
    assert sum(not isinstance(found, str) for found in usual) > 1000
    for part, name in ((footer, "footer_pattern"), (pages, "header_pattern")):
        assert getattr(part, name)().search(end + headers[0])
        monkeypatch.setattr(part, name, lambda: re.compile(b"(?!)"))
    assert [read(number) for number in range(4000)] == usual
