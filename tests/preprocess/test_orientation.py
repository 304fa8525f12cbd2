"""Upright by EXIF: as Pillow's ``exif_transpose`` has it, however a picture is read."""

import io
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps, features

from ptft.data.open import open_split
from ptft.data.packing.shard import pack_picture
from ptft.data.reading.batch import BatchSpec
from ptft.data.reading.decode import Encoded
from ptft.data.reading.loader import eval_batches, train_batches
from ptft.preprocess import ImagePreprocess, decode_image
from ptft.preprocess.decoding import OLDER, READING
from ptft.recipe import AugmentSection
from ptft.recipe.data import FolderData
from tests.support.picture_files import STORED, encode, exif_of, png, upright

FORMATS: dict[str, dict[str, Any]] = {
    "JPEG": {"quality": 95, "subsampling": 0},
    "MPO": {"quality": 95, "subsampling": 0, "save_all": True},
    "PNG": {},
    "WEBP": {"lossless": True},
    "TIFF": {},
    "TIFF compressed": {"compression": "tiff_lzw"},
    "AVIF": {"quality": 100, "subsampling": "4:4:4"},
}
LOSSY = ("JPEG", "MPO", "AVIF")


def lying(orientation: int) -> Image.Image:
    turn = STORED[orientation]
    return upright() if turn is None else upright().transpose(turn)


def stored(form: str, orientation: int) -> bytes:
    if form == "AVIF" and not features.check("avif"):
        pytest.skip("this Pillow has no AVIF")
    picture, options = lying(orientation), dict(FORMATS[form])
    if form == "MPO":
        options["append_images"] = [picture]
    return encode(picture, form.split()[0], exif=exif_of(orientation), **options)


def by_pillow(data: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(data)) as image:
        return np.array(ImageOps.exif_transpose(image).convert("RGB"))


@pytest.mark.parametrize("form", FORMATS)
def test_all_eight_are_upright_by_every_reader(form: str) -> None:
    right = np.array(upright()).astype(int)
    for orientation in STORED:
        data = stored(form, orientation)
        expected = by_pillow(data)
        assert expected.shape == right.shape
        assert np.abs(expected - right).max() <= (12 if form in LOSSY else 0), orientation
        picture = Encoded(data, "x")
        read = (decode_image(data, name="x"), picture.image(), picture.pixels())
        for one in read:
            assert np.array_equal(np.asarray(one), expected), orientation
        assert read[2].flags.writeable and read[2].flags.c_contiguous
        with Image.open(io.BytesIO(data)) as image:  # what a user of the preprocessing hands over
            pixels = ImagePreprocess(size=(32, 48)).pixels(image)
        assert np.array_equal(pixels, expected), orientation


def test_training_and_evaluation_see_them_upright(tmp_path: Path) -> None:
    for orientation in STORED:
        for form in ("JPEG", "PNG"):
            path = tmp_path / f"a/{form}{orientation}.{form.lower()}"
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(stored(form, orientation))
    samples = open_split(FolderData(train=str(tmp_path)), "train")
    preprocess = ImagePreprocess(size=(32, 48))
    right = np.array(upright()).astype(int)
    whole = AugmentSection(crop_scale=(0.9999, 1.0), crop_ratio=(1.5, 1.5))
    for section in (whole, AugmentSection(crop_scale=(1.0, 1.0))):
        (batch,) = train_batches(
            samples,
            BatchSpec(preprocess=preprocess, size=16, augment=section),
            start=0,
            end=16,
            workers=0,
        )
        assert batch.images is not None
        assert np.abs(batch.images.numpy() - right).max() <= 12
    (batch,) = eval_batches(samples, preprocess=preprocess, batch=16, workers=0)
    assert batch.images is not None
    assert np.abs(batch.images.numpy() - right).max() <= 12


def test_an_older_model_still_sees_what_is_stored(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a/6.jpg").write_bytes(stored("JPEG", 6))
    (tmp_path / "a/6.png").write_bytes(stored("PNG", 6))
    samples = open_split(FolderData(train=str(tmp_path)), "train")
    preprocess = ImagePreprocess(size=(48, 32), reading=OLDER)
    right = np.array(lying(6)).astype(int)
    for index in range(2):
        assert np.abs(np.array(samples[index].decoded(OLDER)) - right).max() <= 12
        picture = samples[index].picture
        assert isinstance(picture, Encoded)
        assert np.abs(picture.pixels(OLDER) - right).max() <= 12
        with Image.open(io.BytesIO(picture.data)) as image:
            assert np.abs(preprocess.pixels(image) - right).max() <= 12
    section = AugmentSection(crop_scale=(0.9999, 1.0), crop_ratio=(2 / 3, 2 / 3))
    for augment in (section, AugmentSection(crop_scale=(1.0, 1.0))):
        (batch,) = train_batches(
            samples,
            BatchSpec(preprocess=preprocess, size=2, augment=augment),
            start=0,
            end=2,
            workers=0,
        )
        assert batch.images is not None
        assert np.abs(batch.images.numpy() - right).max() <= 12
    (evaluated,) = eval_batches(samples, preprocess=preprocess, batch=2, workers=0)
    assert evaluated.images is not None
    assert np.abs(evaluated.images.numpy() - right).max() <= 12


def test_turned_once_and_no_more() -> None:
    """What comes out holds nothing by which it would be turned again."""
    for form in ("JPEG", "PNG", "WEBP"):
        image = decode_image(stored(form, 6), name="x")
        assert image.mode == "RGB" and image.info == {} and image.getexif().get(0x0112) is None
        again = ImagePreprocess(size=(32, 48)).pixels(image)
        assert np.array_equal(again, np.asarray(image))
        by_hand = ImageOps.exif_transpose(Image.open(io.BytesIO(stored(form, 6)))).convert("RGB")
        assert np.array_equal(ImagePreprocess(size=(32, 48)).pixels(by_hand), np.asarray(image))


def segment(body: bytes, marker: int = 0xE1) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body


def directory(order: str, *entries: tuple[int, int, int, bytes]) -> bytes:
    """An EXIF segment's body: entries of tag, type, count and four bytes."""
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "IH", 8, len(entries))
    body = b"".join(struct.pack(order + "HHI", *one[:3]) + one[3] for one in entries)
    return b"Exif\0\0" + head + body + struct.pack(order + "I", 0)


def with_segments(*bodies: bytes, between: bytes = b"") -> bytes:
    """A JPEG of 48 x 32 with these before everything else."""
    plain = encode(upright(), "JPEG", quality=95, subsampling=0)
    return plain[:2] + between.join([*bodies, plain[2:]])


XMP = b"http://ns.adobe.com/xap/1.0/\0<x:xmpmeta><rdf:RDF tiff:Orientation=%b/></x:xmpmeta>"
SIX = directory("<", (0x0112, 3, 1, b"\6\0\0\0"))
ODD = {  # a JPEG's first segments -> the orientation that counts
    "big-endian": ([segment(directory(">", (0x0112, 3, 1, b"\0\6\0\0")))], 6),
    "little-endian": ([segment(SIX)], 6),
    "as a long": ([segment(directory("<", (0x0112, 4, 1, b"\6\0\0\0")))], 6),
    "as a byte": ([segment(directory(">", (0x0112, 1, 1, b"\6\0\0\0")))], 1),
    "after others": (
        [segment(directory("<", (0x0100, 3, 1, b"\1\0\0\0"), (0x0112, 3, 1, b"\3\0\0\0")))],
        3,
    ),
    "beside a broken entry": (
        [segment(directory("<", (0x010F, 2, 9, b"\xff" * 4), (0x0112, 3, 1, b"\6\0\0\0")))],
        6,
    ),
    "zero": ([segment(directory("<", (0x0112, 3, 1, b"\0\0\0\0")))], 1),
    "nine": ([segment(directory("<", (0x0112, 3, 1, b"\x09\0\0\0")))], 1),
    "two numbers": ([segment(directory("<", (0x0112, 3, 2, b"\6\0\6\0")))], 6),  # as Pillow
    "a text": ([segment(directory("<", (0x0112, 2, 2, b"6\0\0\0")))], 1),
    "beyond its end": ([segment(b"Exif\0\0II*\0\xff\xff\0\0\x12\x01")], 1),
    "no TIFF in it": ([segment(b"Exif\0\0junk, and \x01\x12\0\3\0\0\0\1\0\6")], 1),
    "empty": ([segment(b"Exif\0\0")], 1),
    "no tag": ([segment(directory("<", (0x0100, 3, 1, b"\x12\1\0\0")))], 1),
    "behind a comment": ([segment(b"a \xff\xda comment", 0xFE), segment(SIX)], 6),
    "behind an earlier scan's marker": ([segment(b"JFXX\0\xff\xda\xff", 0xE0), segment(SIX)], 6),
    "in XMP alone": ([segment(XMP % b'"8"')], 8),
    "in EXIF and XMP": ([segment(XMP % b'"8"'), segment(SIX)], 6),
    "filled up": ([b"\xff\xff" + segment(SIX), b"\xff"], 6),
}


@pytest.mark.filterwarnings("ignore:.*EXIF:UserWarning")
@pytest.mark.filterwarnings("ignore:Truncated File Read:UserWarning")
@pytest.mark.filterwarnings("ignore:.*Metadata Warning:UserWarning")
@pytest.mark.parametrize("what", ODD)
def test_odd_and_broken_orientations_of_jpegs(what: str) -> None:
    bodies, orientation = ODD[what]
    data = with_segments(*bodies)
    picture = Encoded(data, "x")
    turned = {1: upright(), 3: upright().transpose(Image.Transpose.ROTATE_180)}
    turned |= {6: upright().transpose(Image.Transpose.ROTATE_270)}
    turned |= {8: upright().transpose(Image.Transpose.ROTATE_90)}
    right = np.array(turned[orientation]).astype(int)
    for got in (picture.pixels(), np.array(picture.image())):
        assert got.shape == right.shape
        assert np.abs(got - right).max() <= 12
    assert np.array_equal(picture.pixels(), np.array(picture.image()))


def test_bytes_between_segments_are_pillows_to_judge() -> None:
    data = with_segments(segment(SIX), between=b"\0\0")
    try:
        expected = np.array(decode_image(data, name="x"))
    except Exception as error:
        with pytest.raises(type(error)):
            Encoded(data, "x").pixels()
    else:
        assert np.array_equal(Encoded(data, "x").pixels(), expected)


@pytest.mark.parametrize("number", [0, 1, 9, 65535])
def test_numbers_that_are_no_orientation_are_upright(number: int) -> None:
    for form in ("PNG", "WEBP", "TIFF"):
        data = encode(upright(), form, exif=exif_of(number), **FORMATS[form])
        assert np.array_equal(np.array(decode_image(data, name="x")), np.array(upright())), form


def test_a_png_may_tell_behind_its_pixels() -> None:
    exif = exif_of(6).tobytes().removeprefix(b"Exif\0\0")
    data = png(np.array(lying(6)), 8, after={b"eXIf": exif})
    for got in (decode_image(data, name="x"), Encoded(data, "x").pixels()):
        assert np.array_equal(np.asarray(got), np.array(upright()))
    broken = png(np.array(lying(6)), 8, after={b"eXIf": b"II*\0\xff\xff\xff\x7f"})
    assert np.array_equal(np.asarray(decode_image(broken, name="x")), np.array(lying(6)))


def test_what_is_packed_anew_is_upright() -> None:
    """A JPEG that is written again has no EXIF to be turned by."""
    for form in ("JPEG", "PNG", "WEBP"):
        extension, data = pack_picture(Encoded(stored(form, 6), "x"), 16, 95)
        assert extension == "jpg"
        expected = upright().resize((24, 16), Image.Resampling.BICUBIC)
        assert Image.open(io.BytesIO(data)).getexif().get(0x0112) is None
        off = np.abs(Encoded(data, "x").pixels() - np.array(expected).astype(int))
        assert off.shape == (16, 24, 3) and off.mean() <= 6, form


def test_size_is_held_before_turning() -> None:
    for form in ("JPEG", "PNG"):
        with pytest.raises(Exception, match="x: 32x48 pixels; allowed: at most 1000"):
            Encoded(stored(form, 6), "x", max_pixels=1000).pixels(READING)
