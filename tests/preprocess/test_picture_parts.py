"""Pictures of a few pixels and a great many parts, which decoders walk, keep or unpack."""

import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from ptft.data.reading.decode import Encoded
from ptft.errors import SampleError
from ptft.preprocess import decode_image
from ptft.preprocess.decoding import open_picture
from ptft.preprocess.images import ImagePreprocess
from ptft.preprocess.picture_header import read_header
from ptft.preprocess.picture_parts import icon_size, needed
from serving.pictures import Pictures
from serving.settings import Settings
from tests.serving.attacks import uniform_png

MEGABYTE = 1 << 20


def saved(kind: str, mode: str = "RGB", **options: object) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (16, 16), (9, 99, 200)).convert(mode).save(stream, kind, **options)
    return stream.getvalue()


def chunk(kind: bytes, data: bytes = b"") -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(*parts: bytes) -> bytes:
    """With these chunks before the pixels, and behind them."""
    plain = saved("PNG")
    pixels, end = plain.index(b"IDAT") - 4, plain.index(b"IEND") - 4
    between = b"".join(parts)
    return plain[:33] + between + plain[pixels:end] + between + plain[end:]


def segment(marker: int, data: bytes) -> bytes:
    return b"\xff" + bytes([marker]) + struct.pack(">H", len(data) + 2) + data


def jpeg(between: bytes) -> bytes:
    plain = saved("JPEG")
    return plain[:2] + between + plain[2:]


def scans(count: int) -> bytes:
    """A progressive JPEG that refines a coefficient so many times."""
    data = saved("JPEG", "L", progressive=True)
    starts = [at for at in range(len(data)) if data[at : at + 2] == b"\xff\xda"]
    last = data[starts[-1] : -2]
    return data[:-2] + last * (count - len(starts)) + b"\xff\xd9"


def gif(between: bytes) -> bytes:
    plain = saved("GIF", "P")
    start = 13 + 3 * 2 ** ((plain[10] & 7) + 1)
    return plain[:start] + between + plain[start:]


def tiff(*tags: tuple[int, int, int, int], order: str = "<", large: bool = False) -> bytes:
    entry, head = ("HHQQ", "Q") if large else ("HHII", "H")
    start = struct.pack(order + "2sHHHQ", b"II" if order == "<" else b"MM", 43, 8, 0, 16)
    if not large:
        start = struct.pack(order + "2sHI", b"II" if order == "<" else b"MM", 42, 8)
    packed = []
    for tag, kind, count, value in tags:
        if kind == 3 and order == ">":  # a short lies in the first bytes of its field
            value <<= 48 if large else 16
        packed.append(struct.pack(order + entry, tag, kind, count, value))
    return start + struct.pack(order + head, len(tags)) + b"".join(packed) + bytes(MEGABYTE)


def strips(count: int) -> tuple[tuple[int, int, int, int], ...]:
    return ((256, 3, 1, 8), (257, 3, 1, 8), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1),
            (273, 4, count, 400), (277, 3, 1, 1), (278, 3, 1, 1), (279, 4, count, 400))  # fmt: skip


def bmp(runs: bytes) -> bytes:
    head = struct.pack("<IiiHHIIiiII", 40, 16, 16, 1, 8, 1, len(runs), 0, 0, 256, 0) + bytes(1024)
    return b"BM" + struct.pack("<IHHI", 1078 + len(runs), 0, 0, 1078) + head + runs


MANY: dict[str, Callable[[], bytes]] = {
    "chunks": lambda: png(chunk(b"vpAg") * 5000),
    "empty pixels": lambda: png(chunk(b"IDAT") * 5000),
    "segments": lambda: jpeg(segment(0xEC, b"") * 1100),
    "exif, each part of it added to the last": lambda: jpeg(segment(0xE1, b"Exif\0\0a") * 1100),
    "filling": lambda: jpeg(b"\xff" * 1100),
    "junk": lambda: jpeg(segment(0xEC, b"") + b"\1" * 1100),
    "restarts": lambda: jpeg(b"\xff\xd0" * 1100),
    "scans": lambda: scans(101),
    "comments": lambda: gif(b"\x21\xfe\1a\0" * 5000),
    "blocks of a comment": lambda: gif(b"\x21\xfe" + b"\1a" * 5000 + b"\0"),
    "bytes that are no blocks": lambda: gif(b"\1" * 5000),
    "strips": lambda: tiff(*strips(1000)),
    "tiles, most significant byte first": lambda: tiff(*strips(1), (324, 4, 999, 9), order=">"),
    "strips, 64 bits": lambda: tiff(*strips(1000), large=True),
    "tags": lambda: tiff(*strips(1), *[(n, 4, 1, 1) for n in range(300, 4400)]),
    "runs of nothing": lambda: bmp(b"\0\2\0\0" * 50_000 + b"\0\1"),
}


@pytest.mark.parametrize("name", MANY)
def test_a_picture_of_a_great_many_parts_is_refused(name: str) -> None:
    data = MANY[name]()
    with pytest.raises(SampleError, match=r"^x: a \w+ of .*; allowed: at most \d+$"):
        decode_image(data, name="x")
    with pytest.raises(SampleError, match=r"^x: a \w+ of "):
        Encoded(data, "x").pixels()


def test_no_honest_picture_has_so_many() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    for kind, mode, options in (
        ("JPEG", "RGB", {"progressive": True, "icc_profile": bytes(9 * MEGABYTE), "exif": exif}),
        ("JPEG", "CMYK", {}),
        ("PNG", "RGBA", {"exif": exif}),
        ("GIF", "P", {"comment": b"a" * MEGABYTE}),
        ("TIFF", "RGB", {"compression": "raw"}),
        ("TIFF", "RGB", {"compression": "raw", "big_tiff": True}),
        ("TIFF", "1", {"strip_size": 2}),
        ("BMP", "RGB", {}),
        ("WEBP", "RGB", {}),
    ):
        data = saved(kind, mode, **options)
        assert needed(data) == data, (kind, mode)
    assert decode_image(scans(30), name="x").size == (16, 16)
    assert decode_image(bmp((b"\1\5" * 16 + b"\0\0") * 16), name="x").size == (16, 16)


def test_texts_and_profiles_of_a_png_are_not_unpacked(monkeypatch: pytest.MonkeyPatch) -> None:
    """62 texts of a megabyte take 64 MB in 60 kB; a profile may stand there any number of times."""
    packed = zlib.compress(bytes(MEGABYTE - 9), 9)
    parts = [chunk(b"zTXt", b"a%d\0\0" % n + packed) for n in range(62)]
    parts += [chunk(b"iTXt", b"b\0\1\0\0\0" + packed), chunk(b"iCCP", b"c\0\0" + packed)] * 9
    parts += [chunk(b"tEXt", b"d\0e")]

    def refuse() -> None:
        raise AssertionError("unpacked")  # by Pillow in Python; pixels it unpacks in C

    monkeypatch.setattr(zlib, "decompressobj", refuse)
    image = decode_image(png(*parts), name="x")
    assert np.array_equal(np.asarray(image), np.asarray(decode_image(png(), name="x")))
    with open_picture(png(*parts)) as opened:
        opened.load()
        assert set(opened.info) == set()


@pytest.mark.parametrize("name", ["Raw profile type exif", "XML:com.adobe.xmp"])
def test_a_text_of_a_png_that_turns_it_still_does(name: str) -> None:
    exif = b"MM\0*\0\0\0\x08\0\1\x01\x12\0\3\0\0\0\1\0\6\0\0\0\0\0\0"
    texts = {
        "Raw profile type exif": f"\nexif\n{len(exif):8}\n{exif.hex()}\n",
        "XML:com.adobe.xmp": '<x:xmpmeta><a tiff:Orientation="6"/></x:xmpmeta>',
    }
    said = PngImagePlugin.PngInfo()
    said.add_text("Comment", "no more than that", zip=True)
    said.add_text(name, texts[name], zip=True)
    stream = io.BytesIO()
    Image.new("RGB", (20, 10)).save(stream, "PNG", pnginfo=said)
    assert decode_image(stream.getvalue(), name="x").size == (10, 20)


def test_an_icon_is_not_decoded_before_its_size_is_known() -> None:
    """13,000 x 13,000 of one colour are 0.6 MB as a PNG, and took 645 MB."""
    large = uniform_png(300, 200)
    head = struct.pack("<BBBBHHII", 16, 16, 0, 0, 1, 32, len(large), 22)
    data = b"\0\0\1\0\1\0" + head + large
    assert icon_size(data) == (300, 200)
    with pytest.raises(SampleError, match=r"^x: 300x200 pixels; allowed: at most 50000$"):
        decode_image(data, name="x", max_pixels=50_000)
    plain = saved("ICO", sizes=[(16, 16)], bitmap_format="bmp")
    assert icon_size(plain) == decode_image(plain, name="x").size == (16, 16)
    with pytest.raises(SampleError, match="an ICO of 60000 pictures"):
        decode_image(b"\0\0\1\0" + struct.pack("<H", 60_000) + data[6:], name="x")


def test_the_service_looks_at_parts_first_and_charges_runs(tmp_path: Path) -> None:
    pictures = Pictures(Settings(model=tmp_path), ImagePreprocess())
    refused = pictures.look(MANY["scans"](), "x")
    assert isinstance(refused, SampleError) and str(refused).startswith("x: a JPEG of so many")
    runs, plain = read_header(bmp(b"\1\5" * 256 + b"\0\1")), read_header(saved("BMP"))
    assert runs is not None and plain is not None
    assert runs.seconds() > 20 * plain.seconds() > 0
