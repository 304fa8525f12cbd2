"""Readers of bytes that others packed: tars and the indexes beside them, and pictures."""

import contextlib
import io
import json
import tarfile
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import strategies as st
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from ptft.data.open import open_split
from ptft.data.reading.decode import Encoded
from ptft.data.sample import SampleSet
from ptft.data.tar.index import index_tar
from ptft.data.tar.index_file import index_path, read_index, write_index
from ptft.errors import SampleError
from ptft.recipe.data import ShardsData
from tests.fuzz.draw import bytes_near, to_json, values_near
from tests.fuzz.harness import Files, Target

__all__ = ["TARGETS", "make_picture", "read_all"]

_ROWS = 4  # of a set that are read


def make_picture(shade: int = 7) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (4, 4), (shade, 20, 30)).save(stream, "PNG")
    return stream.getvalue()


def read_all(samples: SampleSet) -> None:
    """A few samples whole, as a loader reads them."""
    for index in range(min(len(samples), _ROWS)):
        try:
            samples[index]
        except SampleError:
            continue


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
            ("png", make_picture(number)),
            ("txt", b"a text"),
            ("cls", b"1"),
            ("json", b'{"a": [1, "b"]}'),
        )
    )
    long_name = _member("a/" * 80 + "0001.png", make_picture())
    pax = io.BytesIO()
    with tarfile.open(fileobj=pax, mode="w", format=tarfile.PAX_FORMAT) as tar:
        info = tarfile.TarInfo("é" * 60 + ".png")
        info.pax_headers = {"size": str(len(make_picture())), "comment": "x"}
        info.size = len(make_picture())
        tar.addfile(info, io.BytesIO(make_picture()))
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
    read_all(open_split(section, "train"))


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
            with np.errstate(all="ignore"):
                array.reshape(-1)[place] = np.array([odd], np.int64).astype(array.dtype)[0]
        elif what == "dtype":
            kinds = (np.uint8, np.int8, np.int64, np.uint64, np.float32, np.bool_, np.float16)
            with np.errstate(all="ignore"):
                array = array.astype(draw(st.sampled_from(kinds)))
        elif what == "shape":
            array = draw(st.sampled_from((array[:0], array[None], array[:-1], array.reshape(-1))))
        arrays[name] = np.ascontiguousarray(array)
    said = draw(values_near([said]))
    return save(arrays, metadata={"ptft": to_json(said).decode()})


def _read_index(folder: Path) -> None:
    index = read_index(folder / "a.tar")
    assert index is not None
    read_all(open_split(ShardsData(train=str(folder / "a.tar")), "train"))


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
    "tar": Target(_tar_files(), _read_tar),
    "tar-index": Target(_index_files(), _read_index),
    "picture": Target(_picture_files(), _read_picture),
}
"""Name -> what is read."""
