"""Pictures against open_clip's own transform, bit for bit; of a model from before it said how it
reads in every mode, see ``test_preprocess_decoding`` for the others."""

import io
from dataclasses import dataclass

import numpy as np
import pytest
from PIL import Image

from ptft.compat import import_open_clip
from ptft.errors import ModelError, SampleError
from ptft.preprocess import ImagePreprocess, decode_image
from ptft.preprocess.decoding import OLDER

SIZES = [(64, 64), (97, 61), (61, 97), (333, 50), (20, 17), (224, 224), (225, 224), (5, 300)]
CONFIGS = [
    {},
    {"size": 37},
    {"size": [32, 48]},
    {"size": 40, "interpolation": "bilinear"},
    {"size": [48, 31], "interpolation": "bilinear"},
    {"size": 33, "resize_mode": "squash", "interpolation": "bilinear"},
    {"size": [20, 41], "resize_mode": "squash"},
    {"size": 45, "resize_mode": "longest", "fill_color": 127},
    {"size": [45, 30], "resize_mode": "longest"},
    {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5], "size": 64, "interpolation": "random"},
]


@dataclass(frozen=True)
class Section:
    crop_scale: tuple[float, float] = (0.9, 1.0)
    crop_ratio: tuple[float, float] = (3 / 4, 4 / 3)
    flip: bool = False
    colour_jitter: float = 0.0


def noise(size: tuple[int, int], mode: str = "RGB") -> Image.Image:
    rng = np.random.default_rng(size[0] * 1000 + size[1])
    rgba = rng.integers(0, 256, (size[1], size[0], 4), dtype=np.uint8)
    return Image.fromarray(rgba).convert(mode)


@pytest.mark.parametrize("config", CONFIGS, ids=str)
def test_equal_to_open_clip(config: dict) -> None:
    import_open_clip()
    from open_clip.transform import PreprocessCfg, image_transform_v2

    reference = image_transform_v2(PreprocessCfg(**config), is_train=False)
    ours = ImagePreprocess.from_config(config)
    for size in SIZES:
        for mode in ("RGB", "L", "RGBA"):
            image = noise(size, mode)
            expected = reference(image).numpy()
            assert ours(image).dtype == np.float32
            np.testing.assert_array_equal(ours(image), expected, err_msg=f"{size} {mode}")


def test_normalise_takes_any_leading_axes() -> None:
    preprocess = ImagePreprocess(size=(8, 8))
    pixels = np.random.default_rng(0).integers(0, 256, (3, 2, 8, 8, 3), dtype=np.uint8)
    assert preprocess.normalise(pixels).shape == (3, 2, 3, 8, 8)
    np.testing.assert_array_equal(
        preprocess.normalise(pixels)[2, 1], preprocess.normalise(pixels[2, 1])
    )


def test_config_round_trip() -> None:
    for config in CONFIGS:
        ours = ImagePreprocess.from_config(config)
        assert ImagePreprocess.from_config(ours.to_config()) == ours


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"resize_mod": "squash"}, "resize_mod.*did you mean 'resize_mode'"),
        ({"resize_mode": "crop"}, "'crop'; allowed: shortest, longest, squash"),
        ({"interpolation": "lanczos"}, "'lanczos'; allowed: bicubic, bilinear"),
        ({"mode": "L"}, "allowed: RGB"),
        ({"mean": [0.5, 0.5]}, "three numbers"),
    ],
)
def test_bad_config(config: dict, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        ImagePreprocess.from_config(config)


@pytest.mark.parametrize(
    "config",
    [{"size": 48}, {"size": [30, 40], "resize_mode": "squash", "interpolation": "bilinear"}],
    ids=str,
)
def test_preprocessor_config_gives_transformers_the_same_pixels(config: dict) -> None:
    import transformers

    ours = ImagePreprocess.from_config(config)
    values = ours.preprocessor_config()
    assert values is not None
    name = values.pop("image_processor_type")
    # the PIL backend; the torchvision one resizes slightly differently
    module = getattr(transformers, name + "Pil", None) or getattr(transformers, name)
    processor = module(**values)
    # where an odd number of pixels is cropped, transformers rounds the offset down, so off by one
    for size in [(64, 64), (96, 48), (50, 150), (224, 224)]:
        image = noise(size)
        got = np.asarray(processor(images=image, return_tensors="np")["pixel_values"][0])
        np.testing.assert_allclose(got, ours(image), atol=1e-6)


def test_preprocessor_config_says_where_there_is_none() -> None:
    assert ImagePreprocess(resize_mode="longest").preprocessor_config() is None
    assert ImagePreprocess(size=(20, 30)).preprocessor_config() is None


def test_augment() -> None:
    preprocess = ImagePreprocess(size=(24, 32))
    image = noise((90, 70))
    section = Section(crop_scale=(0.3, 0.8), flip=True, colour_jitter=0.4)

    def draw(seed: int) -> np.ndarray:
        return preprocess.augment(image, np.random.default_rng(seed), section)

    assert draw(0).shape == (24, 32, 3)
    assert draw(0).dtype == np.uint8
    np.testing.assert_array_equal(draw(0), draw(0))
    assert (draw(0) != draw(1)).any()
    still = Section(crop_scale=(1.0, 1.0))
    np.testing.assert_array_equal(
        preprocess.augment(image, np.random.default_rng(0), still), preprocess.pixels(image)
    )


def test_augment_crops_as_torchvision_does() -> None:
    """Same distribution of area and ratio; and the fall-back on long thin pictures."""
    import_open_clip()
    from torchvision.transforms import RandomResizedCrop
    from torchvision.transforms.functional import to_tensor

    from ptft.preprocess.images import random_crop

    section = Section(crop_scale=(0.5, 1.0))
    rng = np.random.default_rng(0)
    for size in [(100, 80), (300, 20), (20, 300)]:
        image = noise(size)
        ours = np.array([random_crop(size, rng, section) for _ in range(3000)], float)
        theirs = np.array(
            [
                RandomResizedCrop.get_params(to_tensor(image), [0.5, 1.0], list(section.crop_ratio))
                for _ in range(3000)
            ],
            float,
        )[:, [1, 0, 3, 2]]
        spread = np.maximum(theirs.std(axis=0), 1e-9)
        assert (np.abs(ours.mean(0) - theirs.mean(0)) < 0.1 * spread + 1e-6).all(), size
        np.testing.assert_allclose(ours.std(0), theirs.std(0), rtol=0.1, atol=1e-6)


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def test_decode() -> None:
    image = noise((31, 17))
    assert decode_image(encoded(image, "PNG"), name="a").size == (31, 17)
    for mode in ("RGBA", "LA", "L", "CMYK", "1"):
        kind = "TIFF" if mode == "CMYK" else "PNG"
        data = encoded(noise((31, 17), mode), kind)
        expected = np.array(Image.open(io.BytesIO(data)).convert("RGB"))
        got = decode_image(data, name="a", reading=OLDER)
        np.testing.assert_array_equal(np.array(got), expected)


def test_decode_palette_with_transparency() -> None:
    data = encoded(noise((9, 9)).quantize(8), "PNG", transparency=bytes([0, 128, 255]))
    with Image.open(io.BytesIO(data)) as image, pytest.warns(UserWarning, match="Palette"):
        expected = np.array(image.convert("RGB"))
    got = decode_image(data, name="a", reading=OLDER)
    np.testing.assert_array_equal(np.array(got), expected)


def test_broken_pictures_are_named() -> None:
    data = encoded(noise((64, 64)), "JPEG")
    for broken in (b"", b"no picture", data[:200], data[: len(data) // 2]):
        with pytest.raises(SampleError, match=r"train/7\.jpg"):
            decode_image(broken, name="train/7.jpg")
    with pytest.raises(SampleError, match="64x64 pixels; allowed: at most 4000"):
        decode_image(data, name="x", max_pixels=4000)
    with pytest.raises(SampleError, match=r"x: .*"):
        decode_image(encoded(Image.new("1", (10000, 10000)), "PNG"), name="x")


def test_a_thin_picture_is_cropped_before_it_is_resized(monkeypatch: pytest.MonkeyPatch) -> None:
    thin = noise((3000, 1))
    preprocess = ImagePreprocess(size=(32, 32))
    sizes: list[tuple[int, int]] = []
    resize = Image.Image.resize

    def watched(image: Image.Image, size: tuple[int, int], *arguments: object) -> Image.Image:
        sizes.append(size)
        return resize(image, size, *arguments)  # type: ignore[arg-type]

    whole = preprocess.pixels(thin)  # 96,000 x 32, which is few enough to be made
    monkeypatch.setattr(Image.Image, "resize", watched)
    monkeypatch.setattr("ptft.preprocess.resizing.CROP_FIRST", 1 << 20)
    np.testing.assert_array_equal(preprocess.pixels(thin), whole)
    assert preprocess.pixels(Image.new("RGB", (1_000_000, 1))).shape == (32, 32, 3)
    assert sizes == [(32, 32), (32, 32)]
