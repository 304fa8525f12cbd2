"""Training's fast pixels: Pillow's within a tenth of a grey level, Pillow itself where it must."""

import itertools
from pathlib import Path

import matplotlib
import numpy as np
import pytest
import sklearn.datasets
from PIL import Image

from ptft.data.open import open_split
from ptft.data.reading.decode import Encoded, decode, draw_crop, resize, stack, train_pixels
from ptft.data.reading.order import rng_for
from ptft.errors import SampleError
from ptft.preprocess.images import ImagePreprocess
from ptft.recipe import AugmentSection
from ptft.recipe.data import ShardsData
from tests.support.picture_files import encode, pillow

PHOTOS = [
    *(Path(sklearn.datasets.__file__).parent / "images" / f"{n}.jpg" for n in ("china", "flower")),
    Path(matplotlib.get_data_path()) / "sample_data" / "grace_hopper.jpg",
]
ODD = (333, 257)  # width and height: no multiple of any block of a JPEG


@pytest.fixture(scope="module")
def photo() -> Image.Image:
    with Image.open(PHOTOS[0]) as image:
        return image.convert("RGB").crop((100, 50, 100 + ODD[0], 50 + ODD[1]))


def by_pillow(pixels: np.ndarray, size: tuple[int, int], form: str = "BICUBIC") -> np.ndarray:
    resized = Image.fromarray(pixels).resize(size[::-1], Image.Resampling[form])
    return np.array(resized).astype(int)


def _rotated() -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = 6  # orientation: to be turned by 90 degrees
    return exif


PLAIN = {
    "4:2:0": ("RGB", {"subsampling": 2}),
    "4:2:2": ("RGB", {"subsampling": 1}),
    "4:4:4": ("RGB", {"subsampling": 0, "quality": 97}),
    "progressive": ("RGB", {"progressive": True}),
    "coarse": ("RGB", {"quality": 5}),
    "restarts": ("RGB", {"restart_marker_blocks": 3}),
    "turned": ("RGB", {"exif": _rotated()}),
    "stored as RGB": ("RGB", {"keep_rgb": True}),
    "grey": ("L", {}),
    "grey progressive": ("L", {"progressive": True}),
}


@pytest.mark.parametrize("kind", PLAIN)
def test_plain_jpegs_decode_to_pillows_bits_without_pillow(
    photo: Image.Image, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    mode, options = PLAIN[kind]
    data = encode(photo.convert(mode), **options)
    expected = pillow(data)
    monkeypatch.setattr("ptft.data.reading.decode.decode_image", None)
    pixels = Encoded(data, "x").pixels()
    height, width = ODD if kind == "turned" else ODD[::-1]
    assert pixels.shape == (height, width, 3) and pixels.flags.writeable
    assert np.array_equal(pixels, expected)


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (40, 1), (7, 9), (8, 16), (17, 15)])
def test_small_and_odd_jpegs_decode_to_pillows_bits(
    photo: Image.Image, size: tuple[int, int]
) -> None:
    for subsampling in range(3):
        data = encode(photo.resize(size), subsampling=subsampling)
        assert np.array_equal(Encoded(data, "x").pixels(), pillow(data))


def test_other_pictures_are_pillows_own(photo: Image.Image) -> None:
    plain = encode(photo)
    others = {
        "cmyk": encode(photo.convert("CMYK")),
        "png": encode(photo, "PNG"),
        "transparent": encode(photo.convert("RGBA"), "PNG"),
        "palette": encode(photo.quantize(50), "PNG"),
        "webp": encode(photo, "WEBP"),
        "bmp": encode(photo, "BMP"),
        "bytes after the end": plain + b"\0\xff\xd8 and more",
    }
    for name, data in others.items():
        assert np.array_equal(Encoded(data, name).pixels(), pillow(data)), name


def test_broken_bytes_are_pillows_to_judge(photo: Image.Image) -> None:
    data = encode(photo, quality=90)
    scrambled = bytearray(data)
    for place in range(len(data) // 2, len(data) // 2 + 40):
        scrambled[place] = 0x5A
    for broken in (b"", data[:3], data[:500], data[: len(data) // 2], data[:-2], bytes(scrambled)):
        outcomes = []
        for read in (Encoded.image, Encoded.pixels):
            try:
                outcomes.append(np.array(read(Encoded(broken, "s/1"))).tobytes())
            except SampleError as error:
                assert str(error).startswith("s/1: ")
                outcomes.append(str(error))
        assert outcomes[0] == outcomes[1]


def test_large_pictures_are_refused_before_they_are_decoded(photo: Image.Image) -> None:
    for data in (encode(photo), encode(photo, "PNG")):
        for read in (Encoded.image, Encoded.pixels):
            with pytest.raises(SampleError, match=r"^s/1: 333x257 pixels; allowed: at most 85580$"):
                read(Encoded(data, "s/1", max_pixels=333 * 257 - 1))
            assert np.array(read(Encoded(data, "s/1", max_pixels=333 * 257))).shape[1] == 333


def test_the_resize_is_pillows_within_a_tenth_of_a_grey_level(photo: Image.Image) -> None:
    """Up and down, either pass first, one pass alone, and none."""
    whole = np.array(photo)
    sides = (40, 63, 64, 65, 80, 130, 250)
    for height, width in itertools.product(sides, sides):
        pixels = np.ascontiguousarray(whole[3 : 3 + height, 5 : 5 + width])
        for size, form in (((64, 64), "BICUBIC"), ((48, 80), "BILINEAR")):
            found = resize(whole[3 : 3 + height, 5 : 5 + width], size, form.lower())
            assert found.dtype == np.uint8 and found.shape == (*size, 3)
            assert found.flags.c_contiguous
            off = np.abs(found - by_pillow(pixels, size, form))
            assert off.mean() <= 0.1, (height, width, size)
            assert off.max() <= 3, (height, width, size)  # in practice 1, rarely 2
    same = resize(whole, whole.shape[:2], "bicubic")
    assert np.array_equal(same, whole)


def test_a_large_reduction_is_pillows_too(photo: Image.Image) -> None:
    large = np.array(photo.resize((1600, 1200), Image.Resampling.BICUBIC))
    for size in ((224, 224), (32, 32)):
        off = np.abs(resize(large, size, "bicubic") - by_pillow(large, size))
        assert off.mean() <= 0.1 and off.max() <= 2


def _compare(
    preprocess: ImagePreprocess, data: bytes, position: int, section: AugmentSection
) -> np.ndarray:
    picture = Encoded(data, "x")
    decoded = decode(picture, section)
    drawn = draw_crop(decoded, rng_for(0, position), section)
    fast = train_pixels(preprocess, decoded, drawn, section)
    slow = preprocess.augment(picture.image(), rng_for(0, position), section)
    assert fast.shape == slow.shape and fast.dtype == slow.dtype
    return np.abs(fast.astype(int) - slow)


def test_training_sees_what_pillow_shows_on_real_photographs() -> None:
    section = AugmentSection(crop_scale=(0.3, 1.0), flip=True)
    preprocess = ImagePreprocess(size=(224, 224))
    off = [
        _compare(preprocess, path.read_bytes(), position, section)
        for path in PHOTOS
        for position in range(6)
    ]
    assert np.mean(off) <= 0.1
    assert max(one.mean() for one in off) <= 0.1


@pytest.mark.parametrize("shards", ["grocery/val-*.tar", "emoji/noto/val-*.tar"])
def test_training_sees_what_pillow_shows_on_real_shards(shared_data: Path, shards: str) -> None:
    samples = open_split(ShardsData(val=str(shared_data / shards)), "val")
    section = AugmentSection()
    for size in ((64, 64), (224, 224)):
        off = []
        for index in range(0, len(samples), 10):
            picture = samples[index].picture
            assert isinstance(picture, Encoded)
            off.append(_compare(ImagePreprocess(size=size), picture.data, index, section))
        assert np.mean(off) <= 0.1, size


def test_jitter_and_mirror_follow_the_same_draws(photo: Image.Image) -> None:
    section = AugmentSection(crop_scale=(0.5, 1.0), flip=True, colour_jitter=0.4)
    for position in range(20):
        off = _compare(ImagePreprocess(size=(64, 64)), encode(photo), position, section)
        assert off.mean() <= 0.2  # contrast and saturation enlarge what was off


def test_without_a_random_crop_training_sees_what_evaluation_sees(photo: Image.Image) -> None:
    preprocess = ImagePreprocess(size=(64, 64))
    still = AugmentSection(crop_scale=(1.0, 1.0))
    picture = Encoded(encode(photo), "x")
    evaluated = decode(picture, still)
    pixels = train_pixels(preprocess, evaluated, draw_crop(evaluated, rng_for(0, 0), still), still)
    assert np.array_equal(pixels, preprocess.pixels(picture.image()))
    section = AugmentSection()
    scene = decode(photo, section)
    pixels = train_pixels(preprocess, scene, draw_crop(scene, rng_for(0, 0), section), section)
    assert np.array_equal(pixels, preprocess.augment(photo, rng_for(0, 0), AugmentSection()))


def test_a_batch_holds_its_pictures_in_their_order(photo: Image.Image) -> None:
    whole = np.array(photo)
    pictures = [whole[:40, start : start + 30].copy() for start in range(3)]
    pictures.append(resize(whole, (40, 30), "bicubic"))
    batch = stack(pictures)
    assert np.array_equal(batch.numpy(), np.stack(pictures))
