"""What a header says is what Pillow finds, and decoding takes no more memory than is charged."""

import io
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from ptft.preprocess.picture_header import BYTES_A_PIXEL, NS_A_PIXEL, PILLOW_NAMES, read_header
from serving import settings

SIZES = [(1, 1), (37, 91), (640, 3)]
FILES = [
    ("jpeg", "RGB", {}),
    ("jpeg", "L", {"progressive": True}),
    ("jpeg", "CMYK", {}),
    ("png", "RGB", {}),
    ("png", "RGBA", {}),
    ("png", "P", {"transparency": 3}),
    ("webp", "RGB", {"lossless": True}),
    ("webp", "RGB", {"quality": 60}),
    ("webp", "RGBA", {"lossless": True}),
    ("webp", "RGB", {"exif": b"Exif\0\0MM\0*\0\0\0\x08\0\0\0\0\0\0"}),
    ("gif", "P", {}),
    ("gif", "P", {"transparency": 3}),
    ("bmp", "RGB", {}),
    ("bmp", "RGBA", {}),
    ("tiff", "RGBA", {}),
    ("tiff", "L", {"compression": "tiff_lzw"}),
    ("avif", "RGB", {}),
    ("avif", "RGBA", {}),
    ("jpeg2000", "RGB", {}),
    ("jpeg2000", "RGBA", {}),
]


def noise(size: tuple[int, int], mode: str) -> Image.Image:
    rng = np.random.default_rng(size[0])
    pixels = rng.integers(0, 256, (size[1], size[0], 4), dtype=np.uint8)
    return Image.fromarray(pixels).convert("RGB").convert(mode)


def encoded(size: tuple[int, int], name: str, mode: str, options: dict) -> bytes:
    stream = io.BytesIO()
    noise(size, mode).save(stream, PILLOW_NAMES[name][0], **options)
    return stream.getvalue()


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("name", "mode", "options"), FILES)
def test_a_header_is_what_pillow_reads(
    name: str, mode: str, options: dict, size: tuple[int, int]
) -> None:
    data = encoded(size, name, mode, options)
    header = read_header(data)
    assert header is not None
    with Image.open(io.BytesIO(data), formats=PILLOW_NAMES[name]) as image:
        assert (header.format, header.size) == (name, image.size)
    assert bool(header.scans) == bool(options.get("progressive"))


def test_a_gifs_first_frame_may_be_larger_than_its_screen() -> None:
    data = bytearray(encoded((40, 30), "gif", "P", {}))
    data[6:10] = b"\1\0\1\0"
    header = read_header(bytes(data))
    assert header is not None
    with Image.open(io.BytesIO(bytes(data))) as image:
        assert header.size == image.size == (40, 30)


def test_broken_files_have_no_size_and_others_no_format() -> None:
    for name, mode, options in FILES:
        data = encoded((37, 91), name, mode, options)
        for end in range(0, 64):
            header = read_header(data[:end])
            assert header is None or header.size in ((0, 0), (37, 91)), (name, end)
    for other in (b"", b"no picture", b"%!PS-Adobe", b"\0\0\1\0\1\0\x10\x10", b"P6 1 1 255 abc"):
        assert read_header(other) is None


def test_several_scans_are_seen_in_a_baseline_file_too() -> None:
    """A channel a scan: libjpeg then holds all coefficients, whatever it is reduced to."""
    data = bytearray(encoded((64, 64), "jpeg", "RGB", {}))
    scan = data.index(b"\xff\xda")
    assert data[scan + 4] == 3
    data[scan + 4] = 1
    header = read_header(bytes(data))
    assert header is not None and header.scans
    assert header.memory(8) > header.pixels * 8


def test_a_scan_that_says_nothing_is_charged_too() -> None:
    """14 bytes of it make libjpeg go over all blocks again."""
    data = encoded((640, 480), "jpeg", "L", {"progressive": True})
    scans = data.count(b"\xff\xda")
    many = data[:-2] + data[data.rindex(b"\xff\xda") : -2] * 60 + data[-2:]
    few, charged = read_header(data), read_header(many)
    assert few is not None and charged is not None
    assert (few.scans, charged.scans) == (scans, scans + 60)
    assert charged.seconds(8) > 3 * few.seconds(8)


def test_every_format_has_its_price() -> None:
    assert set(PILLOW_NAMES) == set(BYTES_A_PIXEL) == set(NS_A_PIXEL) == set(settings.FORMATS)


PEAK = """
import sys
from ptft.preprocess import decode_image
from ptft.preprocess.picture_header import read_header
data = sys.stdin.buffer.read()
def peak():
    lines = open("/proc/self/status").read().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("VmHWM"))
header = read_header(data)
decode_image(data[:0] or SMALL, name="warm")
before = peak()
decode_image(data, name="x")
print((peak() - before) / header.memory())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize(("name", "mode", "options"), FILES)
def test_decoding_takes_no_more_than_is_charged(name: str, mode: str, options: dict) -> None:
    small = encoded((8, 8), name, mode, options)
    large = encoded((2400, 2000), name, mode, options)
    code = PEAK.replace("data[:0] or SMALL", repr(small))
    run = [sys.executable, "-c", code]
    told = subprocess.run(run, input=large, capture_output=True, check=True).stdout
    assert 0.1 < float(told) <= 1.0
