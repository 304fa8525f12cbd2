"""Greyscale of more than 8 bits: scaled from the file's own range, or refused by name."""

import struct
import warnings
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ptft.data.reading.decode import Encoded
from ptft.errors import SampleError
from ptft.preprocess import ImagePreprocess, decode_image
from ptft.preprocess.decoding import OLDER, Reading
from tests.support.picture_files import encode, pgm, png, tiff

GREY = np.tile(np.arange(256, dtype=np.uint16), (8, 1))
ALL = np.arange(65536, dtype=np.uint16).reshape(256, 256)
TWELVE = np.arange(4096, dtype=np.uint16).reshape(64, 64)


def scaled(samples: np.ndarray, low: float, high: float) -> np.ndarray:
    """By hand, in the order of the definition."""
    return np.floor(255 * (samples.astype(np.float64) - low) / (high - low) + 0.5).astype(int)


def read(data: bytes) -> np.ndarray:
    """(H, W) by both readers, which agree; red, green and blue do, too."""
    image = np.asarray(decode_image(data, name="s/1"))
    assert np.array_equal(Encoded(data, "s/1").pixels(), image)
    assert image.dtype == np.uint8 and (image == image[..., :1]).all()
    return image[..., 0].astype(int)


def packed(samples: np.ndarray) -> bytes:
    """12 bits a sample, one after the other."""
    bits = (samples.astype(np.uint16)[..., None] >> np.arange(11, -1, -1)) & 1
    return np.packbits(bits.reshape(len(samples), -1).astype(np.uint8), axis=1).tobytes()


EXACT: dict[str, tuple[bytes, np.ndarray]] = {
    "png": (png(ALL, 16), scaled(ALL, 0, 65535)),
    "png v*257": (png(GREY * 257, 16), GREY),
    "pillow's png": (encode(Image.fromarray(GREY * 257), "PNG"), GREY),
    "tiff": (tiff(ALL), scaled(ALL, 0, 65535)),
    "tiff big-endian": (tiff(ALL, order=">"), scaled(ALL, 0, 65535)),
    "tiff compressed": (
        encode(Image.fromarray(GREY * 257), "TIFF", compression="tiff_adobe_deflate"),
        GREY,
    ),
    "tiff white is zero": (tiff(ALL, photometric=0), scaled(65535 - ALL.astype(int), 0, 65535)),
    "tiff of 12 bits": (
        tiff(TWELVE, bits=12, data=packed(TWELVE)),
        scaled(TWELVE, 0, 4095),
    ),
    "tiff signed, of no negative": (tiff((ALL >> 1).astype(np.int16)), scaled(ALL >> 1, 0, 32767)),
    "tiff signed bytes": (tiff((GREY >> 1).astype(np.int8)), scaled(GREY >> 1, 0, 127)),
    "tiff of 32 bits": (tiff((GREY * 257).astype(np.int32)), GREY),
    "tiff of 32 unsigned bits": (tiff((GREY * 257).astype(np.uint32)), GREY),
    "pillow's mode I": (encode(Image.fromarray((GREY * 257).astype(np.int32)), "TIFF"), GREY),
    "tiff float": (tiff((GREY / 255).astype(np.float32)), GREY),
    "tiff float big-endian": (tiff((GREY / 255).astype(np.float32), order=">"), GREY),
    "tiff float, white is zero": (tiff((GREY / 255).astype(np.float32), photometric=0), 255 - GREY),
    "tiff float a rounding over": (tiff((GREY / 255).astype(np.float32) * 1.0000002), GREY),
    "pfm": (encode(Image.fromarray((GREY / 255).astype(np.float32)), "PPM"), GREY),
    "declared maximum": (tiff(TWELVE, t281=(3, [4095])), scaled(TWELVE, 0, 4095)),
    "declared range": (
        tiff(TWELVE + np.uint16(1000), t280=(3, [1000]), t281=(3, [5095])),
        scaled(TWELVE, 0, 4095),
    ),
    "declared range of signed": (
        tiff(TWELVE.astype(np.int16) - np.int16(1024), t340=(8, [-1024]), t341=(8, [3071])),
        scaled(TWELVE, 0, 4095),
    ),
    "declared range of 32 bits": (
        tiff(TWELVE.astype(np.int32) * 1000, t340=(9, [0]), t341=(9, [4095000])),
        scaled(TWELVE, 0, 4095),
    ),
    "declared range of float": (
        tiff((GREY - 100.0).astype(np.float32), t340=(11, [-100]), t341=(11, [155])),
        GREY,
    ),
    "declared range, white is zero": (
        tiff(TWELVE, photometric=0, t281=(3, [4095])),
        scaled(4095 - TWELVE.astype(int), 0, 4095),
    ),
    "sBIT, as measured": (png(TWELVE, 16, before={b"sBIT": b"\x0c"}), scaled(TWELVE, 0, 4095)),
    "sBIT of 8, as measured": (png(GREY, 16, before={b"sBIT": b"\x08"}), GREY),
    "sBIT, zeros below": (
        png(TWELVE << 4, 16, before={b"sBIT": b"\x0c"}),
        scaled(TWELVE << 4, 0, 65535),
    ),
    "sBIT, dark but scaled": (
        png((TWELVE % 200) << 4, 16, before={b"sBIT": b"\x0c"}),
        scaled((TWELVE % 200) << 4, 0, 65535),
    ),
    "sBIT, repeated below": (
        png((TWELVE << 4) | (TWELVE >> 8), 16, before={b"sBIT": b"\x0c"}),
        scaled((TWELVE << 4) | (TWELVE >> 8), 0, 65535),
    ),
    "sBIT, linearly scaled": (
        png((TWELVE.astype(int) * 65535 + 2047) // 4095, 16, before={b"sBIT": b"\x0c"}),
        scaled(TWELVE, 0, 4095),
    ),
    "sBIT that cannot be": (png(ALL, 16, before={b"sBIT": b"\x00"}), scaled(ALL, 0, 65535)),
    "sBIT of all": (png(TWELVE, 16, before={b"sBIT": b"\x10"}), scaled(TWELVE, 0, 65535)),
    "no sBIT": (png(TWELVE, 16), scaled(TWELVE, 0, 65535)),
}


@pytest.mark.parametrize("what", EXACT)
def test_scaled_from_the_files_own_range(what: str) -> None:
    data, right = EXACT[what]
    got = read(data)
    off = np.abs(got - right).max()
    assert off == 0 or (what == "sBIT, linearly scaled" and off <= 1), off
    assert len(np.unique(got)) > 1


@pytest.mark.parametrize("most", [65535, 4095, 1023, 300, 255, 15])
def test_pgm_by_its_maximum(most: int) -> None:
    samples = np.arange(most + 1, dtype=np.uint16).reshape(1, -1)
    right = scaled(samples, 0, most)
    for plain in (False, True):
        assert np.abs(read(pgm(samples, most, plain=plain)) - right).max() <= 1, plain
    assert read(pgm(samples, most)).max() == 255


def test_jpeg_2000() -> None:
    data = encode(Image.fromarray(GREY * 257), "JPEG2000", irreversible=False)
    assert np.array_equal(read(data), GREY)


@pytest.mark.parametrize("channels", [2, 3, 4])
def test_colour_of_16_bits_is_within_1_of_exact_scaling(channels: int) -> None:
    """Pillow keeps the upper 8 bits."""
    samples = np.repeat(ALL[..., None], channels, axis=2)
    if channels in (2, 4):
        samples[..., -1] = 65535
    files = [png(samples, 16)]
    if channels != 2:
        more: dict[str, Any] = {"t338": (3, [2])} if channels == 4 else {}
        files += [tiff(samples, order=order, **more) for order in "<>"]
    for data in files:
        assert np.abs(read(data) - scaled(ALL, 0, 65535)).max() <= 1


def refused(data: bytes) -> str:
    messages = set()
    for get in (lambda: decode_image(data, name="s/1"), Encoded(data, "s/1").pixels):
        with pytest.raises(SampleError, match=r"^s/1: ") as found:
            get()
        messages.add(str(found.value))
    (message,) = messages
    return message


REFUSED = {
    "float above 1": (
        tiff(GREY.astype(np.float32)),
        "greyscale of float samples (mode F): 0 to 255; allowed: 0 to 1 (float), or what a TIFF "
        "declares in SMinSampleValue and SMaxSampleValue",
    ),
    "float below 0": (tiff((GREY / 255 - 0.5).astype(np.float32)), "float samples (mode F): -0.5"),
    "NaN": (
        tiff(np.where(GREY == 7, np.nan, 0.5).astype(np.float32)),
        "float samples (mode F): 8 that are no finite numbers; allowed: 0 to 1",
    ),
    "infinite": (
        tiff(np.where(GREY == 7, np.inf, 0.5).astype(np.float32)),
        "float samples (mode F): 8 that are no finite numbers",
    ),
    "pfm of metres": (encode(Image.fromarray(GREY.astype(np.float32)), "PPM"), "float"),
    "float of 64 bits": (tiff(GREY / 255), "float samples of 64 bits, which Pillow does not open"),
    "float of 16 bits": (tiff((GREY / 255).astype(np.float16)), "a TIFF of float samples of 16"),
    "float of 3 channels": (
        tiff(np.zeros((4, 4, 3), np.float32)),
        "a TIFF of float samples of 32+32+32 bits",
    ),
    "negative": (
        tiff((GREY.astype(np.int16) - 1) * 10),
        "greyscale of integer samples (mode I): -10 to 2540; allowed: 0 to 32767 (signed 16 bits)",
    ),
    "negative bytes": (tiff((GREY - 128).astype(np.int8)), "integer samples (mode L): -128 to 127"),
    "negative of 32 bits": (tiff(GREY.astype(np.int32) - 1), "-1 to 254; allowed: 0 to 65535"),
    "above 16 bits": (tiff(GREY.astype(np.int32) * 1000), "0 to 255000; allowed: 0 to 65535"),
    "above 31 bits": (tiff(GREY.astype(np.uint32) * 2**24), "0 to 4278190080; allowed: 0 to 65535"),
    "beyond what is declared": (
        tiff(GREY * 257, t281=(3, [4095])),
        "0 to 65535; allowed: 0 to 4095 (as the file declares)",
    ),
    "a range of nothing": (
        tiff(GREY, t280=(3, [9]), t281=(3, [9])),
        "samples from 9 to 9; allowed",
    ),
    "colour, sBIT": (
        png(np.repeat(TWELVE[..., None], 3, axis=2), 16, before={b"sBIT": b"\x0c\x0c\x0c"}),
        "colour of 16 bits (mode RGB) of which sBIT 12 declares 12; allowed: samples that are",
    ),
    "colour and opacity, sBIT": (
        png(np.repeat(TWELVE[..., None], 4, axis=2), 16, before={b"sBIT": b"\x0c\x0c\x0c\x10"}),
        "(mode RGBA) of which sBIT 12",
    ),
    "grey and opacity, sBIT": (
        png(
            np.stack([TWELVE, np.full_like(TWELVE, 65535)], axis=2),
            16,
            before={b"sBIT": b"\x0c\x10"},
        ),
        "(mode RGBA) of which sBIT 12",
    ),
    "colour, declared maximum": (
        tiff(np.repeat(TWELVE[..., None], 3, axis=2), t281=(3, [4095] * 3)),
        "(mode RGB) of which MaxSampleValue 4095 declares 12",
    ),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_cannot_be_known_is_refused_by_name(what: str) -> None:
    data, message = REFUSED[what]
    assert message in refused(data)


def test_colour_that_declares_fewer_bits_and_is_scaled() -> None:
    samples = np.repeat((TWELVE << 4)[..., None], 3, axis=2)
    for data in (
        png(samples, 16, before={b"sBIT": b"\x0c\x0c\x0c"}),
        tiff(samples, t281=(3, [65520] * 3)),
    ):
        assert np.abs(read(data) - scaled(TWELVE << 4, 0, 65535)).max() <= 1


def test_a_transparent_sample_of_16_bits_is_the_background() -> None:
    key = {b"tRNS": struct.pack(">H", 7 * 257)}
    got = np.asarray(decode_image(png(GREY * 257, 16, before=key), name="x"))[..., 0]
    assert np.array_equal(got, np.where(GREY == 7, 255, GREY))
    red = Reading(background=(255, 0, 0))
    got = np.asarray(decode_image(png(GREY * 257, 16, before=key), name="x", reading=red))
    assert (got[GREY == 7] == (255, 0, 0)).all()
    dropped = Reading(background=None)
    got = np.asarray(decode_image(png(GREY * 257, 16, before=key), name="x", reading=dropped))
    assert np.array_equal(got[..., 0], GREY)


def test_an_older_model_has_it_cut_as_pillow_does() -> None:
    for samples in (ALL, ALL.astype(np.int32), GREY.astype(np.float32) / 100):
        image = Image.fromarray(samples)
        expected = np.array(image.convert("RGB"))
        data = encode(image, "TIFF")
        assert np.array_equal(np.asarray(decode_image(data, name="x", reading=OLDER)), expected)
        assert np.array_equal(Encoded(data, "x").pixels(OLDER), expected)


def test_a_picture_that_pillow_opened_is_scaled_before_it_is_resized() -> None:
    preprocess = ImagePreprocess(size=(8, 8))
    smooth = np.add.outer(np.arange(64), np.arange(64)).astype(np.uint16)
    expected = preprocess.pixels(Image.fromarray(smooth.astype(np.uint8)))
    for image in (
        Image.fromarray(smooth * 257),
        Image.fromarray((smooth * 257).astype(np.int32)),
        Image.fromarray((smooth / 255).astype(np.float32)),
    ):
        assert np.array_equal(preprocess.pixels(image), expected)
    with pytest.raises(SampleError, match=r"^greyscale of float samples"):
        preprocess.pixels(Image.fromarray(smooth.astype(np.float32)))


def test_nothing_is_warned_of() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for data, _ in EXACT.values():
            assert decode_image(data, name="x").mode == "RGB"
