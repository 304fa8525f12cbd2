"""Readers of data and recipes: recipe, patterns, tar and its index, parquet, tables,
classes, pictures."""

import contextlib
import io
import json
import tarfile
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
import yaml
from hypothesis import strategies as st
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from ptft.data.classes import load_classes
from ptft.data.decode import Encoded
from ptft.data.index_file import index_path, read_index, write_index
from ptft.data.open import open_split
from ptft.data.sample import SampleSet
from ptft.data.tar_index import index_tar
from ptft.errors import SampleError
from ptft.recipe.data import FolderData, ShardsData, TableData
from ptft.recipe.load import load_any
from ptft.recipe.paths import expand_paths
from tests.fuzz.draw import bytes_near, to_json, values_near
from tests.fuzz.harness import Files, Target

__all__ = ["TARGETS"]

_ROWS = 4  # of a set that are read


def _picture(shade: int = 7) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (4, 4), (shade, 20, 30)).save(stream, "PNG")
    return stream.getvalue()


def _read_all(samples: SampleSet) -> None:
    """A few samples whole, as a loader reads them."""
    for index in range(min(len(samples), _ROWS)):
        try:
            samples[index]
        except SampleError:
            continue


# recipes

_RECIPES: list[dict[str, Any]] = [
    {
        "name": "a",
        "seed": 1,
        "model": {"arch": {"name": "ViT-B-32"}},
        "data": {"kind": "scenes", "train": 64},
        "optim": {"lr": 0.001, "epochs": 1},
        "run": {"dir": "runs/a", "workers": 0},
    },
    {
        "name": "b",
        "init": {"from": "models/a"},
        "data": {"kind": "shards", "train": "a-{0..3}.tar", "cache": "c", "cache_gb": 1.5},
        "evaluate": [{"kind": "retrieval", "split": "val"}],
    },
    {
        "name": "c",
        "data": {
            "kind": "mixture",
            "parts": [{"data": {"kind": "folder", "train": "x", "classes": ["a", "b"]}}],
        },
        "stages": [{"name": "s", "data": {"kind": "table", "train": "a.parquet"}}],
        "compare": {"seeds": 2},
    },
]
_RECIPE_WORDS = (b"*a", b"&a ", b"<<: *a\n", b"!!binary ", b"? ", b"- ", b": ", b"{a: ", b"1e400")


def _recipe_files() -> st.SearchStrategy[Files]:
    texts = [yaml.safe_dump(recipe).encode() for recipe in _RECIPES]
    written = values_near(_RECIPES, ("optim", "run", "distill", "early_stop", "guard")).map(to_json)
    near = bytes_near(texts, _RECIPE_WORDS)
    return st.one_of(written, near).map(lambda data: {"recipe.yaml": data})


def _read_recipe(folder: Path) -> None:
    load_any(folder / "recipe.yaml")


# patterns

_PATTERNS = st.text(alphabet="a0189{},.*?[]-/\0~é\\", max_size=24)
_RANGES = st.builds(
    "a{{{}..{}{}}}{}".format,
    st.integers(-(10**12), 10**12),
    st.integers(-(10**12), 10**12),
    st.sampled_from(("", "..3", "..0", "..-1", "..1000000")),
    st.sampled_from(("", "{0..999999}", "{a,b{c,d}}" * 9, "{,}" * 40, ".tar")),
)


def _read_patterns(folder: Path) -> None:
    expand_paths((folder / "pattern").read_text(encoding="utf-8"), "data.train")


# tars and their indexes


def _member(name: str, data: bytes, kind: bytes = tarfile.REGTYPE) -> bytes:
    info = tarfile.TarInfo(name)
    info.size, info.type = len(data), kind
    return info.tobuf(tarfile.GNU_FORMAT) + data + bytes(-len(data) % 512)


@cache
def _tars() -> tuple[bytes, ...]:
    plain = b"".join(
        _member(f"{number:04d}.{extension}", data)
        for number in range(3)
        for extension, data in (
            ("png", _picture(number)),
            ("txt", b"a text"),
            ("cls", b"1"),
            ("json", b'{"a": [1, "b"]}'),
        )
    )
    long_name = _member("a/" * 80 + "0001.png", _picture())
    pax = io.BytesIO()
    with tarfile.open(fileobj=pax, mode="w", format=tarfile.PAX_FORMAT) as tar:
        info = tarfile.TarInfo("é" * 60 + ".png")
        info.pax_headers = {"size": str(len(_picture())), "comment": "x"}
        info.size = len(_picture())
        tar.addfile(info, io.BytesIO(_picture()))
    return plain + bytes(1024), long_name + plain + bytes(1024), pax.getvalue(), plain


_TAR_WORDS = (
    *(b"\x80" + b"\xff" * 11, b"\xff" * 12, b"\x80" + bytes(3) + b"\x7f" + b"\xff" * 7),
    *(b"77777777777\0", b"-0000000001\0", b"0_0_0_0\0", b"99 size=9999999999999999999999\n"),
    *(b"20 size=-1\n", b"0", b"x", b"L", b"g", b"K", b"S", b"ustar\0" + b"00", b"../../etc/x.png"),
)


def _tar_files() -> st.SearchStrategy[Files]:
    return bytes_near(_tars(), _TAR_WORDS).map(lambda data: {"a.tar": data})


def _read_tar(folder: Path) -> None:
    index_tar(folder / "a.tar", whole=True)
    section = ShardsData(train=str(folder / "a.tar"), captions=["{txt} {a}"])
    _read_all(open_split(section, "train"))


@cache
def _indexes() -> tuple[tuple[bytes, bytes], ...]:
    found = []
    with tempfile.TemporaryDirectory() as place:
        path = Path(place) / "a.tar"
        for data in _tars():
            path.write_bytes(data)
            write_index(path)
            found.append((data, index_path(path).read_bytes()))
    return tuple(found)


_INDEX_WORDS = (
    *(np.array([n], np.int64).tobytes() for n in (-1, 2**63 - 1, 2**62, -(2**63), 512, 0)),
    *(b'"count": 99999999', b'"dtype":"F64"', b'"shape":[0]', b'"shape":[-1]', b'"I64"', b'"U8"'),
    *(b'{\\"format\\": null', b"\\ud800", b'"data_offsets":[0,18446744073709551615]'),
)


@st.composite
def _index_files(draw: st.DrawFn) -> Files:
    """Edits in the header or the arrays; or the arrays of a good one, with odd numbers, written by
    safetensors, which only then reach the checks of what they say."""
    tar, index = draw(st.sampled_from(_indexes()))
    if draw(st.booleans()):
        return {"a.tar": tar, "a.tar.index": draw(bytes_near([index], _INDEX_WORDS))}
    return {"a.tar": tar, "a.tar.index": _other_arrays(draw, index)}


def _other_arrays(draw: st.DrawFn, index: bytes) -> bytes:
    from safetensors.numpy import load, save

    arrays = dict(load(index))
    length = int.from_bytes(index[:8], "little")
    said = json.loads(json.loads(index[8 : 8 + length])["__metadata__"]["ptft"])
    for _ in range(draw(st.integers(1, 3))):
        name = draw(st.sampled_from(sorted(arrays)))
        what = draw(st.sampled_from(("value", "value", "dtype", "shape", "drop")))
        array = arrays[name].copy()
        if what == "drop":
            del arrays[name]
            if not arrays:
                break
            continue
        if what == "value" and array.size:
            place = draw(st.integers(0, array.size - 1))
            odd = draw(st.sampled_from((0, 1, -1, 2**63 - 1, 2**62, -(2**63), 255)))
            array.reshape(-1)[place] = np.array([odd], np.int64).astype(array.dtype)[0]
        elif what == "dtype":
            kinds = (np.uint8, np.int8, np.int64, np.uint64, np.float32, np.bool_, np.float16)
            array = array.astype(draw(st.sampled_from(kinds)))
        elif what == "shape":
            array = draw(st.sampled_from((array[:0], array[None], array[:-1], array.reshape(-1))))
        arrays[name] = np.ascontiguousarray(array)
    said = draw(values_near([said]))
    return save(arrays, metadata={"ptft": to_json(said).decode()})


def _read_index(folder: Path) -> None:
    index = read_index(folder / "a.tar")
    assert index is not None
    _read_all(open_split(ShardsData(train=str(folder / "a.tar")), "train"))


# tables


@cache
def _parquets() -> tuple[bytes, ...]:
    found = []
    for codec, nested in (("none", False), ("snappy", True), ("zstd", False)):
        pictures: Any = [_picture(number) for number in range(6)]
        if nested:
            pictures = [{"bytes": data, "path": None} for data in pictures]
        table = pyarrow.table(
            {
                "image": pictures,
                "text": ["a", "b", None, "a", "a", "a"],
                "label": [0, 1, 1, -1, 0, None],
                "file_name": [f"{number}.png" for number in range(6)],
            }
        )
        stream = io.BytesIO()
        pyarrow.parquet.write_table(table, stream, row_group_size=4, compression=codec)
        found.append(stream.getvalue())
    return tuple(found)


def _parquet_files() -> st.SearchStrategy[Files]:
    words = (b"PAR1", b"\x15\x80\x80\x80\x80\x10", b"\x26\xfe\xff\xff\xff\xff\xff\xff\xff\xff\x01")
    return bytes_near(_parquets(), words).map(
        lambda data: {"a.parquet": data, "f/metadata.parquet": data, "f/0.png": _picture()}
    )


def _read_parquet(folder: Path) -> None:
    for section in (
        TableData(train=str(folder / "a.parquet"), image="image", captions=["{text}"]),
        TableData(train=str(folder / "a.parquet"), image=None, captions=["{text}"], label="label"),
        FolderData(train=str(folder / "f")),
    ):
        try:
            _read_all(open_split(section, "train"))
        except SampleError:
            continue


_CSVS = (
    b"file_name,text\n0.png,a red square\n1.png,\"a, b\"\n0.png,['x']\n",
    b'\xef\xbb\xbffile_name,text,label\r\n0.png,"[""a"", ""b""]",x\r\n',
)
_LINES: list[Any] = [{"file_name": "0.png", "text": ["a", "b"], "label": 1}]


def _table_files() -> st.SearchStrategy[Files]:
    plain = bytes_near(_CSVS, (b'"', b",", b"\n", b"\r", b";", b"\t", b'"[')).map(
        lambda data: {"metadata.csv": data}
    )
    rows = st.lists(values_near(_LINES, ("x",)).map(to_json), min_size=1, max_size=3)
    lines = st.one_of(
        rows.map(b"\n".join),
        bytes_near([json.dumps(_LINES[0]).encode()]),
    ).map(lambda data: {"metadata.jsonl": data})
    return st.one_of(plain, lines).map(lambda files: {**files, "0.png": _picture()})


def _read_table(folder: Path) -> None:
    _read_all(open_split(FolderData(train=str(folder)), "train"))
    found = next(iter(folder.glob("metadata.*")))
    _read_all(open_split(TableData(train=str(found), image=None, captions=["{text}"]), "train"))


# classes

_CLASSES: list[Any] = [
    ["a", "b"],
    [{"id": 0, "text": "a"}, {"id": 1, "name": "b"}],
    [{"name": "a"}],
]


def _classes_files() -> st.SearchStrategy[Files]:
    written = st.one_of(
        values_near(_CLASSES).map(to_json),
        bytes_near([json.dumps(values).encode() for values in _CLASSES]),
    ).map(lambda data: {"classes.json": data})
    listed = bytes_near([b"a\nb\n", "é\r\nß".encode()]).map(lambda data: {"classes.txt": data})
    return st.one_of(written, listed)


def _read_classes(folder: Path) -> None:
    load_classes(str(next(iter(folder.glob("classes.*")))))


# pictures


@cache
def _pictures() -> tuple[bytes, ...]:
    found = []
    info = PngInfo()
    info.add_text("a", "b" * 50, zip=True)
    info.add_itxt("c", "d", zip=True)
    exif = Image.Exif()
    exif[0x0112] = 6
    options: dict[str, dict[str, Any]] = {
        "PNG": {"pnginfo": info, "exif": exif, "icc_profile": b"x" * 200},
        "JPEG": {"exif": exif, "icc_profile": b"x" * 200},
        **{kind: {} for kind in ("GIF", "BMP", "TIFF", "WEBP", "PPM", "JPEG2000", "ICO")},
    }
    for kind, extra in options.items():
        stream = io.BytesIO()
        Image.new("RGB", (16, 8), (9, 20, 30)).save(stream, kind, **extra)
        found.append(stream.getvalue())
    return tuple(found)


def _picture_files() -> st.SearchStrategy[Files]:
    words = (
        b"zTXt",
        b"iCCP",
        b"acTL",
        b"\xff\xd8\xff",
        b"\xff\xe1\xff\xff",
        b"ANMF",
        b"\x7f\xff" * 2,
    )
    return bytes_near(_pictures(), words).map(lambda data: {"a": data})


def _read_picture(folder: Path) -> None:
    data = (folder / "a").read_bytes()
    for read in (Encoded(data, "a").image, Encoded(data, "a").pixels):
        with contextlib.suppress(SampleError):
            read()


TARGETS: dict[str, Target] = {
    "recipe": Target(_recipe_files(), _read_recipe),
    "patterns": Target(
        st.one_of(_PATTERNS, _RANGES).map(lambda text: {"pattern": text.encode()}), _read_patterns
    ),
    "tar": Target(_tar_files(), _read_tar),
    "tar-index": Target(_index_files(), _read_index),
    "parquet": Target(_parquet_files(), _read_parquet),
    "table": Target(_table_files(), _read_table),
    "classes": Target(_classes_files(), _read_classes),
    "picture": Target(_picture_files(), _read_picture),
}
"""Name -> what is read."""
