"""From bytes to RGB: against Pillow's own conversions, on the stated background, and as stated in
the files of a model."""

import io
import json
import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ptft.artifact import read_json
from ptft.compat import import_open_clip
from ptft.data.reading.decode import Encoded
from ptft.errors import ModelError, SampleError
from ptft.export.model_files import write_model_files
from ptft.model import load_model, save_model
from ptft.preprocess import ImagePreprocess, Reading, decode_image
from ptft.preprocess.decoding import OLDER, READING
from tests.support import tiny
from tests.support.picture_files import age, encode, png

RNG = np.random.default_rng(0)
BYTES = RNG.integers(0, 256, (24, 32, 4), np.uint8)
RGBA = Image.fromarray(BYTES)
RGB = RGBA.convert("RGB")
GREEN = Reading(background=(0, 200, 0))


def half_palette() -> Image.Image:
    """A palette of 16 colours."""
    return RGB.quantize(16)


OPAQUE = {
    "RGB png": encode(RGB, "PNG"),
    "RGB jpeg": encode(RGB, "JPEG"),
    "RGB webp": encode(RGB, "WEBP", lossless=True),
    "RGB bmp": encode(RGB, "BMP"),
    "RGB tiff": encode(RGB, "TIFF"),
    "RGB ppm": encode(RGB, "PPM"),
    "L png": encode(RGB.convert("L"), "PNG"),
    "L jpeg": encode(RGB.convert("L"), "JPEG"),
    "1 png": encode(RGB.convert("1"), "PNG"),
    "1 tiff": encode(RGB.convert("1"), "TIFF"),
    "2 bits": png(BYTES[..., 0] >> 6, 2),
    "4 bits": png(BYTES[..., 0] >> 4, 4),
    "P png": encode(half_palette(), "PNG"),
    "P gif": encode(half_palette(), "GIF"),
    "CMYK tiff": encode(RGB.convert("CMYK"), "TIFF"),
    "CMYK jpeg": encode(RGB.convert("CMYK"), "JPEG"),
    "YCbCr tiff": encode(RGB.convert("YCbCr"), "TIFF"),
    "LAB tiff": encode(RGB.convert("LAB"), "TIFF"),
    "RGBA, all opaque": encode(RGB.convert("RGBA"), "PNG"),
}


@pytest.mark.parametrize("what", OPAQUE)
def test_opaque_pictures_of_8_bits_are_pillows_conversion(what: str) -> None:
    data = OPAQUE[what]
    with Image.open(io.BytesIO(data)) as image:
        expected = np.array(image.convert("RGB"))
    for reading in (READING, OLDER):
        assert np.array_equal(np.array(decode_image(data, name="x", reading=reading)), expected)
        assert np.array_equal(Encoded(data, "x").pixels(reading), expected)


def test_few_bits_of_grey_reach_black_and_white() -> None:
    for depth in (1, 2, 4):
        samples = np.arange(1 << depth, dtype=np.uint8)[None]
        got = np.asarray(decode_image(png(samples, depth), name="x"))[0, :, 0]
        assert got.tolist() == [255 * one // ((1 << depth) - 1) for one in samples[0].tolist()]


def laid(image: Image.Image, background: tuple[int, int, int]) -> np.ndarray:
    """On a background, in float64 by the definition: not rounded."""
    rgba = np.array(image.convert("RGBA")).astype(np.float64)
    share = rgba[..., 3:] / 255
    return rgba[..., :3] * share + np.array(background) * (1 - share)


def transparent() -> dict[str, bytes]:
    alphas = bytes([0, 60, 120, 255])
    palette = half_palette()
    grey = BYTES[..., 0]
    return {
        "RGBA png": encode(RGBA, "PNG"),
        "RGBA tiff": encode(RGBA, "TIFF"),
        "RGBA webp": encode(RGBA, "WEBP", lossless=True, exact=True),
        "LA png": encode(RGBA.convert("LA"), "PNG"),
        "P with a transparent colour": encode(palette, "PNG", transparency=3),
        "P with opacities": encode(palette, "PNG", transparency=alphas),
        "P gif": encode(palette, "GIF", transparency=3),
        "L with a transparent sample": png(grey, 8, before={b"tRNS": struct.pack(">H", 7)}),
        "RGB with a transparent colour": png(
            BYTES[..., :3], 8, before={b"tRNS": struct.pack(">HHH", *BYTES[3, 4, :3].tolist())}
        ),
        "ico": encode(RGBA.resize((32, 32)), "ICO", sizes=[(32, 32)]),
    }


@pytest.mark.parametrize("what", transparent())
def test_transparent_pixels_lie_on_the_background(what: str) -> None:
    data = transparent()[what]
    with Image.open(io.BytesIO(data)) as image:
        image.load()
        shows = {GREEN: laid(image, (0, 200, 0)), READING: laid(image, (255, 255, 255))}
    assert not np.array_equal(shows[GREEN], shows[READING]), "nothing in it is transparent"
    for reading, expected in shows.items():
        for got in (
            np.array(decode_image(data, name="x", reading=reading)),
            Encoded(data, "x").pixels(reading),
        ):
            assert np.abs(got - expected).max() <= 1
    with Image.open(io.BytesIO(data)) as image:
        assert image.convert("RGBA").getchannel("A").getextrema()[0] < 255


def test_the_background_is_laid_as_pillow_lays_it() -> None:
    below = Image.new("RGBA", RGBA.size, (0, 200, 0, 255))
    expected = np.array(Image.alpha_composite(below, RGBA).convert("RGB"))
    got = decode_image(encode(RGBA, "PNG"), name="x", reading=GREEN)
    assert np.array_equal(np.array(got), expected)


@pytest.mark.parametrize(("depth", "key"), [(1, 0), (1, 1), (2, 1), (4, 9), (8, 200)])
def test_a_transparent_sample_of_any_depth(depth: int, key: int) -> None:
    """Pillow scales the samples and leaves the key as the file has it."""
    samples = np.arange(1 << depth, dtype=np.uint8)[None]
    data = png(samples, depth, before={b"tRNS": struct.pack(">H", key)})
    got = np.asarray(decode_image(data, name="x", reading=GREEN))[0]
    for sample in range(1 << depth):
        grey = 255 * sample // ((1 << depth) - 1)
        assert got[sample].tolist() == ([0, 200, 0] if sample == key else [grey] * 3)


def test_a_transparent_colour_of_16_bits_counts_by_its_upper_8() -> None:
    samples = np.repeat(np.arange(256, dtype=np.uint16)[None, :, None] * 257, 3, axis=2)
    data = png(samples, 16, before={b"tRNS": struct.pack(">HHH", *[9 * 257] * 3)})
    got = np.asarray(decode_image(data, name="x", reading=GREEN))[0]
    assert got[9].tolist() == [0, 200, 0]
    assert [one[0] for one in got.tolist() if one != [0, 200, 0]] == [*range(9), *range(10, 256)]


def test_an_older_model_drops_opacity() -> None:
    for what, data in transparent().items():
        with Image.open(io.BytesIO(data)) as image:
            if image.mode == "P":
                image.apply_transparency()
            expected = np.array(image.convert("RGB"))
        got = np.array(decode_image(data, name="x", reading=OLDER))
        assert np.array_equal(got, expected), what


def test_an_animation_shows_its_first_frame() -> None:
    frames = [Image.new("RGB", (16, 16), colour) for colour in ((200, 0, 0), (0, 0, 200))]
    for form, options in (("GIF", {}), ("WEBP", {"lossless": True}), ("PNG", {}), ("TIFF", {})):
        data = encode(frames[0], form, save_all=True, append_images=frames[1:], **options)
        got = np.array(decode_image(data, name="x"))
        assert (got == (200, 0, 0)).all(), form


def test_converted_before_the_resize_where_open_clip_converts_after() -> None:
    import_open_clip()
    from open_clip.transform import PreprocessCfg, image_transform_v2

    theirs = image_transform_v2(PreprocessCfg(size=16), is_train=False)
    ours = ImagePreprocess(size=(16, 16))
    older = ImagePreprocess(size=(16, 16), reading=OLDER)
    wide = RGBA.resize((90, 70), Image.Resampling.BICUBIC)
    for image in (wide.convert("RGB"), wide.convert("L")):
        assert np.array_equal(ours(image), theirs(image).numpy())
        assert np.array_equal(older(image), theirs(image).numpy())
    for image in (wide.convert("1"), wide.convert("RGB").quantize(32), wide):
        assert np.array_equal(older(image), theirs(image).numpy()), image.mode
        assert not np.array_equal(ours(image), theirs(image).numpy()), image.mode
    for image in (wide.convert("1"), wide.convert("RGB").quantize(32)):
        assert np.array_equal(ours(image), theirs(image.convert("RGB")).numpy()), image.mode


def test_the_reading_travels_in_the_configuration() -> None:
    for reading in (READING, OLDER, GREEN, Reading(orient=False), Reading(depth="clip")):
        ours = ImagePreprocess(size=(20, 30), reading=reading)
        config = json.loads(json.dumps(ours.to_config()))
        assert ImagePreprocess.from_config(config) == ours
        assert ("reading" in config) == (reading != OLDER)
        assert "reading" not in ours.open_clip_config()
    assert ImagePreprocess.from_config({}).reading == OLDER
    assert ImagePreprocess.from_config({}, unsaid=READING).reading == READING == Reading()
    assert ImagePreprocess(reading=OLDER).to_config() == ImagePreprocess().open_clip_config()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"orientation": True}, "reading.orientation: unknown key; did you mean 'orient'"),
        ({"orient": 1}, r"reading\.orient: 1; allowed: true, false"),
        ({"depth": "window"}, "reading.depth: 'window'; allowed: file, clip"),
        ({"background": [255, 255]}, r"background: \[255, 255\]; allowed: null, or three whole"),
        ({"background": [256, 0, 0]}, "allowed: null, or three whole numbers from 0 to 255"),
        ({"background": "white"}, "'white'; allowed: null"),
    ],
)
def test_a_wrong_reading_says_what_is_allowed(change: dict, message: str) -> None:
    config = {"reading": {**READING.to_config(), **change}}
    with pytest.raises(ModelError, match=message):
        ImagePreprocess.from_config(config)
    with pytest.raises(ModelError, match=r"preprocess_cfg\.reading\.depth: missing"):
        ImagePreprocess.from_config({"reading": {"orient": True, "background": None}})


def test_a_new_model_says_how_it_reads_and_an_older_one_keeps_what_it_had(tmp_path: Path) -> None:
    model = tiny.build(tiny.arch_section())
    assert model.spec.preprocess.reading == READING
    save_model(model, tmp_path / "new")
    assert load_model(tmp_path / "new").spec.preprocess == model.spec.preprocess
    save_model(model, tmp_path / "old")
    age(tmp_path / "old")
    older = load_model(tmp_path / "old")
    assert older.spec.preprocess.reading == OLDER
    save_model(older, tmp_path / "again")
    before, after = ((tmp_path / name / "model.json").read_text() for name in ("old", "again"))
    assert before == after
    started = tiny.build(tiny.arch_section(pretrained=str(tmp_path / "old")))
    assert started.spec.preprocess.reading == READING  # a new model, of older weights


def test_what_open_clip_reads_holds_its_own_keys_alone(tmp_path: Path) -> None:
    model = tiny.build(tiny.arch_section())
    model.spec = model.spec.with_(preprocess=ImagePreprocess(size=(32, 32), reading=GREEN))
    (tmp_path / "model").mkdir()
    write_model_files(model, tmp_path / "model")
    config = read_json(tmp_path / "model" / "open_clip_config.json")["preprocess_cfg"]
    assert config == model.spec.preprocess.open_clip_config()
    assert load_model(tmp_path / "model").spec.preprocess.reading == GREEN
    assert tiny.build(
        tiny.arch_section(pretrained=str(tmp_path / "model"))
    ).spec.preprocess.reading == (GREEN)
    (tmp_path / "model" / "model.json").unlink()  # what is left is open_clip's
    assert load_model(tmp_path / "model").spec.preprocess.reading == READING


def test_what_a_decoder_says_nothing_of_is_said_in_words() -> None:
    lost = encode(half_palette(), "PNG").replace(b"PLTE", b"pLTE")  # its palette's checksum too
    with pytest.raises(SampleError, match=r"^a\.png: (?!AssertionError)\S.*\S$"):
        decode_image(lost, name="a.png")
