"""Data of a stranger: what a few bytes say that they stand for is held against their size."""

import io
import json
import os
import resource
import struct
import tarfile
import zlib
from pathlib import Path
from typing import Any

import pytest
from safetensors.numpy import load_file, save_file

from ptft.data.fields.classes import load_classes
from ptft.data.fields.templates import MAX_CAPTION, clean_text
from ptft.data.open import open_split
from ptft.data.reading.decode import Encoded
from ptft.data.sources.plain_rows import read_csv, read_jsonl
from ptft.data.tar.index import index_tar
from ptft.data.tar.index_file import index_path, load_index, write_index
from ptft.errors import DataError, RecipeError, SampleError
from ptft.preprocess.cleaning import bound_text
from ptft.preprocess.decoding import MAX_PICTURE
from ptft.recipe.data import FolderData, ShardsData
from tests.fuzz.harness import alarm
from tests.support.bounded import room
from tests.support.shards import picture, write_pairs, write_tar

__all__ = ["room"]  # a fixture


# tars and their indexes


def _sized(field: bytes, flag: bytes = b"0") -> bytes:
    """A tar of one picture whose size is written as ``field``."""
    info = tarfile.TarInfo("a.png")
    header = bytearray(info.tobuf(tarfile.USTAR_FORMAT))
    header[124:136], header[156:157] = field.ljust(12, b"\0"), flag
    return bytes(header) + picture(1).ljust(512 * 9, b"\0") + bytes(1024)


@pytest.mark.parametrize(
    "field",
    [
        *(b"-0000001000", b"-1", b"+7", b"0_0_7", b" 7 7", b"9", b"0x7"),
        *(b"\xff" * 12, b"\x80" + b"\xff" * 11, b"\x80\0\0\0" + b"\x7f" + b"\xff" * 7),
    ],
)
def test_a_size_that_is_none_is_told(field: bytes, tmp_path: Path) -> None:
    """Octal -1000 led back to the same header, for ever."""
    (tmp_path / "a.tar").write_bytes(_sized(field))
    with pytest.raises(DataError, match=r"offset 0: .*(is not a size|cut short)"):
        index_tar(tmp_path / "a.tar")


@pytest.mark.parametrize("text", ["9" * 5000, "-1", "\u0663", "9" * 19, "1e3", ""])
def test_a_size_in_a_record_that_is_none_is_told(text: str, tmp_path: Path) -> None:
    info = tarfile.TarInfo("a.png")
    record = b"%d size=%s\n" % (0, text.encode())
    length = len(record) + len(str(len(record))) - 1
    record = b"%d size=%s\n" % (length + (len(str(length)) > len(str(len(record)))), text.encode())
    pax = tarfile.TarInfo("pax")
    pax.type, pax.size = b"x", len(record)
    data = pax.tobuf(tarfile.USTAR_FORMAT) + record.ljust(-(-len(record) // 512) * 512, b"\0")
    (tmp_path / "a.tar").write_bytes(data + info.tobuf(tarfile.USTAR_FORMAT) + bytes(1024))
    with pytest.raises(DataError, match=r"is not a size|cut short"):
        index_tar(tmp_path / "a.tar")


def test_many_records_take_time_by_their_length(tmp_path: Path) -> None:
    """A megabyte of records was copied once for each of them."""
    records = b"6 a=b\n" * 170_000
    pax = tarfile.TarInfo("pax")
    pax.type, pax.size = b"x", len(records)
    header = pax.tobuf(tarfile.USTAR_FORMAT) + records.ljust(-(-len(records) // 512) * 512, b"\0")
    path = write_pairs(tmp_path / "a.tar", 2)
    path.write_bytes(header * 8 + path.read_bytes())
    with alarm():
        assert len(index_tar(path)) == 2


def test_more_extensions_than_there_are_numbers_for(tmp_path: Path) -> None:
    files = {f"{number}.e{number}": b"" for number in range(1 << 16)}
    path = write_tar(tmp_path / "a.tar", {"a.png": picture(1), **files})
    with pytest.raises(DataError, match="more than 65,536 different extensions"):
        index_tar(path)


def test_a_pipe_is_no_tar_and_no_picture(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.tar")
    with pytest.raises(DataError, match="not a plain file"):
        index_tar(tmp_path / "a.tar")
    (tmp_path / "f").mkdir()
    (tmp_path / "f/metadata.csv").write_text("file_name,text\na.png,x\nb.png,y\n")
    (tmp_path / "f/b.png").write_bytes(picture(1))
    os.mkfifo(tmp_path / "f/a.png")
    samples = open_split(FolderData(train=str(tmp_path / "f"), join="none"), "train")
    with pytest.raises(SampleError, match=r"a\.png: not a plain file"):
        samples[0]


@pytest.mark.parametrize(
    ("name", "place", "value"),
    [
        ("offsets", 0, 2**63 - 1),
        ("sizes", 0, 2**63 - 1),
        ("sizes", 1, -(2**63)),
        ("offsets", 1, -512),
        ("starts", 1, 2**62),
        ("starts", 1, 0),
        ("kinds", 0, 60_000),
        ("keys.ends", 0, -1),
        ("keys.ends", 0, 2**62),
    ],
)
def test_an_index_whose_numbers_do_not_fit_is_broken(
    name: str, place: int, value: int, tmp_path: Path
) -> None:
    tar = write_pairs(tmp_path / "a.tar", 3)
    write_index(tar)
    path = index_path(tar)
    _change(path, **{name: lambda array: array.__setitem__(place, value)})
    with pytest.raises(DataError, match=r"broken .*`ptft data index` writes it again"):
        load_index(path, tar)


def _change(path: Path, **changes: Any) -> None:
    arrays, header = load_file(path), path.read_bytes()
    length = int.from_bytes(header[:8], "little")
    said = json.loads(header[8 : 8 + length])["__metadata__"]
    for name, change in changes.items():
        arrays[name] = arrays[name].copy()
        change(arrays[name])
    save_file(arrays, path, metadata=said)


def test_an_index_of_both_ends_of_the_numbers_does_not_wrap_around(tmp_path: Path) -> None:
    """An offset and a size whose sum is below 0 passed for one within the tar."""
    tar = write_pairs(tmp_path / "a.tar", 3)
    write_index(tar)
    path = index_path(tar)
    _change(
        path,
        offsets=lambda array: array.__setitem__(2, 2**63 - 600),
        sizes=lambda array: array.__setitem__(2, 2**63 - 600),
    )
    with pytest.raises(DataError, match="do not fit each other"):
        load_index(path, tar)


def test_a_text_in_a_tar_has_bounds(tmp_path: Path) -> None:
    files = {"a.png": picture(1), "a.txt": b"x" * ((4 << 20) + 1), "b.png": picture(2)}
    path = write_tar(tmp_path / "a.tar", {**files, "b.txt": b"b", "b.json": b"[" * 100_000})
    samples = open_split(ShardsData(train=str(path)), "train")
    with pytest.raises(SampleError, match="a: txt: 4,194,305 bytes; allowed: 4,194,304"):
        samples.captions(0)
    with pytest.raises(SampleError, match="b: json: "):
        samples.captions(1)


def test_a_picture_file_has_bounds(tmp_path: Path) -> None:
    (tmp_path / "metadata.csv").write_text("file_name,text\na.png,x\nb.png,y\n")
    (tmp_path / "b.png").write_bytes(picture(1))
    with (tmp_path / "a.png").open("wb") as stream:
        stream.truncate(1 << 40)  # of which the disk holds nothing
    samples = open_split(FolderData(train=str(tmp_path), join="none"), "train")
    with pytest.raises(SampleError, match=f"1,099,511,627,776 bytes; allowed: {MAX_PICTURE:,}"):
        samples[0]


# tables and classes


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (",".join(f"c{n}" for n in range(5000)) + "\n", "5,000 columns; allowed: at most 4,096"),
        (",".join(f"c{n}" for n in range(4000)) + "\n" + "x\n" * 1000, "cells in .* bytes"),
        ("a" * 3000 + "\nx\n", "a column's name of 3,000 characters; allowed: at most 1,024"),
        ("a,b\n" + "x" * 200_000 + ",y\n", "row 1: field larger than field limit"),
    ],
)
def test_a_table_of_too_many_or_too_large_cells_is_refused(
    text: str, said: str, tmp_path: Path
) -> None:
    (tmp_path / "a.csv").write_text(text)
    with pytest.raises(DataError, match=said):
        read_csv(tmp_path / "a.csv")


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('{"a": "' + "x" * (4 << 20) + '"}', "line 1: more than 4,194,304 bytes"),
        ('{"a": ' + "[" * 100_000, "line 1: not JSON"),
        ('{"a": ' + "9" * 5000 + "}", "line 1: not JSON"),
    ],
)
def test_a_line_of_json_has_bounds(line: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(line)
    with pytest.raises(DataError, match=said):
        read_jsonl(tmp_path / "a.jsonl")


def test_a_table_of_absurd_size_is_not_read(tmp_path: Path) -> None:
    for name, read in (("a.csv", read_csv), ("a.jsonl", read_jsonl)):
        with (tmp_path / name).open("wb") as stream:
            stream.truncate(1 << 40)
        with pytest.raises(DataError, match="1,099,511,627,776 bytes; allowed: at most"):
            read(tmp_path / name)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[" * 100_000, "not JSON"),
        ("[" + "9" * 5000 + "]", "not JSON"),
        ('[{"id": 0, "name": "a"}, {"id": {}, "name": "b"}]', "ids; allowed: whole numbers"),
        ('[{"id": 0, "name": "a"}, {"id": true, "name": "b"}]', "ids; allowed: whole numbers"),
        (json.dumps(["x" * 5000]), "class 0 has 5,000 characters; allowed: 4,096"),
        ("[[1]]", "class 0 is .*; allowed: a name"),
        ('[{"id": 0, "name": "a", "name": "b"}]', "the key 'name' comes twice"),
    ],
)
def test_a_file_of_classes_is_refused_in_one_line(text: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "classes.json"
    path.write_text(text)
    with pytest.raises(RecipeError, match=said) as caught:
        load_classes(str(path))
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 500


def test_a_key_among_a_hundred_thousand_is_found_in_one_pass(tmp_path: Path) -> None:
    keys = ", ".join(f'"k{n}": 0' for n in [*range(100_000), 99_999])
    (tmp_path / "classes.json").write_text(f"[{{{keys}}}]")
    with pytest.raises(RecipeError, match="the key 'k99999' comes twice"):
        load_classes(str(tmp_path / "classes.json"))


def test_classes_by_the_hundred_thousand_are_compared_once(tmp_path: Path) -> None:
    path = tmp_path / "classes.txt"
    path.write_text("\n".join(f"class {n}" for n in range(100_000)))
    assert len(load_classes(str(path))) == 100_000, "each with all the others is 10^10"


def test_a_file_of_classes_of_absurd_size_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "classes.txt").open("wb") as stream:
        stream.truncate(1 << 40)
    with pytest.raises(RecipeError, match="more than 67,108,864 bytes"):
        load_classes(str(tmp_path / "classes.txt"))


# texts and pictures


def test_texts_take_time_by_their_length() -> None:
    """Blanks of two kinds in turn, and marks above marks, took time by its square."""
    with alarm():
        assert len(clean_text("x" * 25_000_000)) == MAX_CAPTION
        assert clean_text("\u200b " * 500_000) == ""
        assert len(clean_text("a" + "\u0301\u0316" * 500_000)) <= 66


@pytest.mark.parametrize("text", ["a" * 4096, "e\u0301" * 2048, "x" + "\u0301" * 4000])
def test_a_short_text_is_left_alone(text: str) -> None:
    assert bound_text(text, 10_000) == text


def test_a_long_text_keeps_the_marks_of_every_language() -> None:
    text = "ก็ที่ é ẫ नमस्ते שָׁלוֹם " * 400
    assert bound_text(text, 100_000) == text


def _png(*chunks: tuple[bytes, bytes]) -> bytes:
    plain = picture(1)
    extra = b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in chunks
    )
    return plain[:33] + extra + plain[33:]


def test_a_png_whose_notes_unpack_to_gigabytes_takes_none() -> None:
    zeros = zlib.compress(bytes(200 << 20), 9)
    for kind, body in ((b"zTXt", b"a\0\0" + zeros), (b"iCCP", b"a\0\0" + zeros)):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        data = _png(*[(kind, body)] * 5)
        try:
            Encoded(data, "a").image()
        except SampleError as error:
            assert "\n" not in str(error)
        after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        assert after - before < 150 << 10, "KiB"
    assert Encoded(_png((b"tEXt", b"a\0b")), "a").image().mode == "RGB"
    assert io.BytesIO(zeros).getbuffer().nbytes < 1 << 20


def test_half_a_character_is_no_text_and_no_name(tmp_path: Path) -> None:
    assert clean_text("a\ud800b") == "a\ufffdb"
    rows = [{"file_name": "a.png", "text": "x\udfff"}, {"file_name": "\ud800.png", "text": "x"}]
    (tmp_path / "a.png").write_bytes(picture(1))
    (tmp_path / "metadata.jsonl").write_text(json.dumps(rows[0]))
    assert open_split(FolderData(train=str(tmp_path)), "train").captions(0) == ("x\ufffd",)
    (tmp_path / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    with pytest.raises(DataError, match=r"row 2: file_name .*allowed: a path inside the folder"):
        open_split(FolderData(train=str(tmp_path)), "train")
