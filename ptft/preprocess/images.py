"""Pictures to arrays, as open_clip's evaluation transform does it on PIL.

The order: to upright RGB of 8 bits at full size (``ptft.preprocess.decoding``), resize, crop or
pad, scale to [0, 1], subtract the mean, divide by the standard deviation. Everything up to the crop
gives bytes (``pixels``); the rest is arithmetic (``normalise``) that may as well run on an
accelerator.

Equal to open_clip's transform bit for bit are pictures of 8-bit RGB or greyscale that EXIF does not
turn. Others differ on purpose. open_clip converts to RGB after the resize, so that it resizes
1-bit and palette pictures by nearest neighbour, shrinks what a transparent pixel hides along with
the rest, turns 16-bit and float greyscale white or black, and never looks at EXIF. A model from
before it said how it reads (``OLDER``) still has all of that, bit for bit.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageEnhance

from ptft.errors import ModelError
from ptft.files.bounds import Bounds
from ptft.model_record import MAX_SIDE
from ptft.preprocess.decoding import (
    MAX_PIXELS,
    OLDER,
    READING,
    Reading,
    decode_image,
    to_rgb,
    too_many_pixels,
)
from ptft.preprocess.resizing import ResizeMode, fit, least_size

__all__ = [
    "MAX_PIXELS",
    "Augmentation",
    "ImagePreprocess",
    "Reading",
    "decode_image",
    "random_crop",
    "too_many_pixels",
    "vary",
]

Interpolation = Literal["bicubic", "bilinear"]

_FILTERS = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}
_OPEN_CLIP_KEYS = ("size", "mode", "mean", "std", "interpolation", "resize_mode", "fill_color")
_MODES = ("shortest", "longest", "squash")


class Augmentation(Protocol):
    """What ``ImagePreprocess.augment`` reads of a recipe's ``augment`` section."""

    @property
    def crop_scale(self) -> tuple[float, float]: ...
    @property
    def crop_ratio(self) -> tuple[float, float]: ...
    @property
    def flip(self) -> bool: ...
    @property
    def colour_jitter(self) -> float: ...


@dataclass(frozen=True)
class ImagePreprocess:
    """What a model does to a picture; it belongs to the model and travels with it.

    Attributes:
        size: height and width that the model takes, in pixels.
        mean, std: of red, green and blue, in units of full brightness.
        interpolation: of the resize.
        resize_mode: ``shortest`` scales the shorter side to fit and crops the longer one,
            ``longest`` scales the longer side and pads the shorter one, ``squash`` scales both.
        fill_color: brightness (0 to 255) of what ``longest`` pads with.
        reading: how a picture becomes upright RGB of 8 bits before all that.
    """

    size: tuple[int, int] = (224, 224)
    mean: tuple[float, float, float] = (0.48145466, 0.4578275, 0.40821073)  # OpenAI's CLIP
    std: tuple[float, float, float] = (0.26862954, 0.26130258, 0.27577711)
    interpolation: Interpolation = "bicubic"
    resize_mode: ResizeMode = "shortest"
    fill_color: int = 0
    reading: Reading = READING

    @classmethod
    def from_config(
        cls, config: Mapping[str, Any], *, unsaid: Reading = OLDER
    ) -> "ImagePreprocess":
        """Read open_clip's ``preprocess_cfg``; absent keys have open_clip's defaults.

        Args:
            config: open_clip's keys, and ``reading``.
            unsaid: the reading where there is no such key. In a file of ptft's that is the one from
                before there was; what open_clip wrote says nothing of it, so that a model which
                begins there gets the present one, ``READING``.

        Raises:
            ModelError: a key is unknown, or a value is not one that is supported.
        """
        bounds = Bounds(config, "preprocess_cfg.", ModelError)
        bounds.keys((*_OPEN_CLIP_KEYS, "reading"))
        values = dict(config)
        given = values.pop("reading", None)
        values["reading"] = unsaid if given is None else Reading.from_config(given)
        if (mode := values.pop("mode", "RGB")) != "RGB":
            raise ModelError(f"preprocess_cfg.mode: {mode!r}; allowed: RGB")
        if "size" in values:
            values["size"] = _size(values["size"])
        for key in ("mean", "std"):
            if key in values:
                values[key] = _triple(key, values[key])
        if "fill_color" in values:
            Bounds(values, "preprocess_cfg.", ModelError).whole("fill_color", 0, 255)
        if values.get("interpolation") == "random":  # open_clip: bicubic outside training
            values["interpolation"] = "bicubic"
        for key, choices in (("interpolation", tuple(_FILTERS)), ("resize_mode", _MODES)):
            Bounds(values, "preprocess_cfg.", ModelError).choice(key, choices)
        return cls(**values)

    def to_config(self) -> dict[str, Any]:
        """All of it: open_clip's ``preprocess_cfg``, and ``reading`` but where it is ``OLDER``, so
        that folders from before there was a choice keep their digest when they are written again.
        """
        config = self.open_clip_config()
        return config if self.reading == OLDER else {**config, "reading": self.reading.to_config()}

    def open_clip_config(self) -> dict[str, Any]:
        """``preprocess_cfg`` with the keys that open_clip knows, and no others."""
        height, width = self.size
        return {
            "size": height if height == width else [height, width],
            "mode": "RGB",
            "mean": list(self.mean),
            "std": list(self.std),
            "interpolation": self.interpolation,
            "resize_mode": self.resize_mode,
            "fill_color": self.fill_color,
        }

    def preprocessor_config(self) -> dict[str, Any] | None:
        """``preprocessor_config.json`` of transformers, or None where it has no exact form.

        ``CLIPImageProcessor`` for ``shortest`` and a square, ``SiglipImageProcessor`` for
        ``squash``. Where an odd number of pixels is cropped, transformers may crop one further up
        or left than open_clip.
        """
        height, width = self.size
        common = {
            "do_convert_rgb": True,
            "do_normalize": True,
            "do_rescale": True,
            "do_resize": True,
            "image_mean": list(self.mean),
            "image_std": list(self.std),
            "resample": int(_FILTERS[self.interpolation]),
            "rescale_factor": 1 / 255,
        }
        if self.resize_mode == "squash":
            return {
                "image_processor_type": "SiglipImageProcessor",
                **common,
                # CLIPProcessor of transformers 4 reads this file as CLIP's, which crops unless told
                "do_center_crop": False,
                "size": {"height": height, "width": width},
            }
        if self.resize_mode == "shortest" and height == width:
            return {
                "image_processor_type": "CLIPImageProcessor",
                **common,
                "do_center_crop": True,
                "size": {"shortest_edge": height},
                "crop_size": {"height": height, "width": width},
            }
        return None

    def pixels(self, image: Image.Image) -> NDArray[np.uint8]:
        """The picture as the model takes it: uint8 (H, W, 3).

        Args:
            image: in any mode; what ``decode_image`` gives, or Pillow opens.

        Raises:
            SampleError: the picture cannot be read as the model does, see ``decode_image``.
        """
        height, width = self.size
        resample = _FILTERS[self.interpolation]
        if self.resize_mode == "shortest" and height != width:
            resample = _FILTERS["bicubic"]  # open_clip ignores the setting for this case
        fill = self.fill_color if self.resize_mode == "longest" else 0
        fitted = fit(self._read(image), self.size, self.resize_mode, resample, fill)
        return np.array(fitted.convert("RGB"), dtype=np.uint8)

    def least_size(self, size: tuple[int, int]) -> tuple[int, int]:
        """Width and height that a picture of this width and height may be reduced to while it is
        decoded; ``pixels`` then differ a little, see :data:`ptft.preprocess.resizing.DCT_SAFETY`.
        """
        return least_size(size, self.size)

    def normalise(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """uint8 (..., H, W, 3) to float32 (..., 3, H, W), equal to torchvision's arithmetic."""
        channels = np.ascontiguousarray(np.moveaxis(pixels, -1, -3)).astype(np.float32)
        channels /= np.float32(255)
        channels -= np.array(self.mean, np.float32)[:, None, None]
        channels /= np.array(self.std, np.float32)[:, None, None]
        return channels

    def __call__(self, image: Image.Image) -> NDArray[np.float32]:
        """float32 (3, H, W)."""
        return self.normalise(self.pixels(image))

    def augment(
        self, image: Image.Image, rng: np.random.Generator, section: Augmentation
    ) -> NDArray[np.uint8]:
        """A random crop, mirrored and jittered as ``section`` says: uint8 (H, W, 3).

        The crop is that of torchvision's RandomResizedCrop: up to ten draws of an area and an
        aspect ratio, then the largest centred crop of an allowed ratio. With a ``crop_scale`` of
        (1, 1) the evaluation's resize and crop takes its place.
        """
        if section.crop_scale == (1.0, 1.0):
            return vary(self.pixels(image), rng, section)
        image = self._read(image)
        left, top, width, height = random_crop(image.size, rng, section)
        crop = image.crop((left, top, left + width, top + height))
        picture = crop.resize(self.size[::-1], _FILTERS[self.interpolation]).convert("RGB")
        return vary(np.array(picture, dtype=np.uint8), rng, section)

    def _read(self, image: Image.Image) -> Image.Image:
        """Upright RGB of 8 bits; an older model converts after the resize, as open_clip does."""
        return image if self.reading == OLDER else to_rgb(image, self.reading)


def random_crop(
    size: tuple[int, int], rng: np.random.Generator, section: Augmentation
) -> tuple[int, int, int, int]:
    """Left, top, width and height of the crop that ``augment`` takes of a picture of this width
    and height."""
    width, height = size
    low, high = section.crop_ratio
    for _ in range(10):
        area = width * height * rng.uniform(*section.crop_scale)
        ratio = math.exp(rng.uniform(math.log(low), math.log(high)))
        crop_width, crop_height = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < crop_width <= width and 0 < crop_height <= height:
            left = int(rng.integers(0, width - crop_width + 1))
            top = int(rng.integers(0, height - crop_height + 1))
            return left, top, crop_width, crop_height
    if width / height < low:
        crop_width, crop_height = width, min(height, max(1, round(width / low)))
    elif width / height > high:
        crop_width, crop_height = min(width, max(1, round(height * high))), height
    else:
        crop_width, crop_height = width, height
    return (width - crop_width) // 2, (height - crop_height) // 2, crop_width, crop_height


def vary(
    pixels: NDArray[np.uint8], rng: np.random.Generator, section: Augmentation
) -> NDArray[np.uint8]:
    """What ``augment`` does after the crop: uint8 (H, W, 3), mirrored and jittered by chance."""
    if section.flip and rng.random() < 0.5:
        pixels = np.ascontiguousarray(pixels[:, ::-1])
    if section.colour_jitter > 0:
        jittered = _jitter(Image.fromarray(pixels), rng, section.colour_jitter)
        pixels = np.array(jittered, dtype=np.uint8)
    return pixels


def _jitter(image: Image.Image, rng: np.random.Generator, strength: float) -> Image.Image:
    """Brightness, contrast and saturation, each by up to ``strength``, in a random order."""
    changes = (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color)
    for index in rng.permutation(len(changes)):
        image = changes[index](image).enhance(rng.uniform(max(0.0, 1 - strength), 1 + strength))
    return image


def _size(value: Any) -> tuple[int, int]:
    """Height and width: two numbers, or one for both."""
    bounds = Bounds({}, "preprocess_cfg.", ModelError)
    sides = value if isinstance(value, list | tuple) else [value]
    if not 1 <= len(sides) <= 2:
        bounds.refuse("size", value, "height and width")
    for side in sides:
        bounds.check_whole(side, "size", 1, MAX_SIDE)
    return (int(sides[0]), int(sides[-1]))


def _triple(key: str, value: Any) -> tuple[float, float, float]:
    """Of red, green and blue: three numbers, or one for all."""
    bounds = Bounds({}, "preprocess_cfg.", ModelError)
    three = list(value) if isinstance(value, list | tuple) else [value] * 3
    if len(three) != 3:
        bounds.refuse(key, value, "three numbers")
    for number in three:
        # a picture is divided by the deviation: next to nothing would make infinities of it
        bounds.check_number(number, key, *((1e-6, 1e3) if key == "std" else (-1e3, 1e3)))
    red, green, blue = map(float, three)
    return (red, green, blue)
