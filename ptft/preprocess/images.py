"""Pictures to arrays, as open_clip's evaluation transform does it on PIL, bit for bit.

The order is open_clip's: resize, crop or pad, convert to RGB, scale to [0, 1], subtract the mean,
divide by the standard deviation. Everything up to the conversion gives bytes (``pixels``); the rest
is arithmetic (``normalise``) that may as well run on an accelerator.
"""

import io
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageEnhance, ImageOps, UnidentifiedImageError

from ptft.errors import Fault, ModelError, SampleError, suggest

__all__ = [
    "MAX_PIXELS",
    "Augmentation",
    "ImagePreprocess",
    "decode_image",
    "random_crop",
    "too_many_pixels",
    "vary",
]

MAX_PIXELS = 64_000_000
"""Larger pictures are refused before they are decoded, unless told otherwise."""

ResizeMode = Literal["shortest", "longest", "squash"]
Interpolation = Literal["bicubic", "bilinear"]

_FILTERS = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}
_MODES = ("shortest", "longest", "squash")
_MAX_RESIZED = 64_000_000  # pixels; a picture 1 pixel high would be resized to gigabytes

# Formats that Pillow reads by itself. Others start programs (EPS) or are of no use here.
_FORMATS = ("JPEG", "MPO", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "AVIF", "JPEG2000", "ICO")


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
    """

    size: tuple[int, int] = (224, 224)
    mean: tuple[float, float, float] = (0.48145466, 0.4578275, 0.40821073)  # OpenAI's CLIP
    std: tuple[float, float, float] = (0.26862954, 0.26130258, 0.27577711)
    interpolation: Interpolation = "bicubic"
    resize_mode: ResizeMode = "shortest"
    fill_color: int = 0

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> "ImagePreprocess":
        """Read open_clip's ``preprocess_cfg``; absent keys have open_clip's defaults.

        Raises:
            ModelError: a key is unknown, or a value is not one that is supported.
        """
        known = ("size", "mode", "mean", "std", "interpolation", "resize_mode", "fill_color")
        for key in config:
            if key not in known:
                raise ModelError(f"preprocess_cfg.{key}: unknown key; {suggest(key, known)}")
        values = dict(config)
        if (mode := values.pop("mode", "RGB")) != "RGB":
            raise ModelError(f"preprocess_cfg.mode: {mode!r}; allowed: RGB")
        if "size" in values:
            size = values["size"]
            height, width = (size, size) if isinstance(size, int) else (size[0], size[-1])
            values["size"] = (int(height), int(width))
        for key in ("mean", "std"):
            if key in values:
                value = values[key]
                triple = (value,) * 3 if isinstance(value, int | float) else tuple(value)
                if len(triple) != 3:
                    raise ModelError(f"preprocess_cfg.{key}: {value!r}; allowed: three numbers")
                values[key] = tuple(float(number) for number in triple)
        if values.get("interpolation") == "random":  # open_clip: bicubic outside training
            values["interpolation"] = "bicubic"
        for key, choices in (("interpolation", tuple(_FILTERS)), ("resize_mode", _MODES)):
            if key in values and values[key] not in choices:
                raise ModelError(
                    f"preprocess_cfg.{key}: {values[key]!r}; allowed: {', '.join(choices)}"
                )
        return cls(**values)

    def to_config(self) -> dict[str, Any]:
        """The same as open_clip's ``preprocess_cfg``."""
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

        Raises:
            SampleError: the picture is so long and thin that resizing it would fill the memory.
        """
        resized = self._resize(image)
        if self.resize_mode != "squash":
            fill = self.fill_color if self.resize_mode == "longest" else 0
            resized = _center_crop_or_pad(resized, self.size, fill)
        return np.array(resized.convert("RGB"), dtype=np.uint8)

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
        left, top, width, height = random_crop(image.size, rng, section)
        crop = image.crop((left, top, left + width, top + height))
        picture = crop.resize(self.size[::-1], _FILTERS[self.interpolation]).convert("RGB")
        return vary(np.array(picture, dtype=np.uint8), rng, section)

    def _resize(self, image: Image.Image) -> Image.Image:
        width, height = image.size
        target_height, target_width = self.size
        resample = _FILTERS[self.interpolation]
        if self.resize_mode == "squash":
            return image.resize((target_width, target_height), resample)
        if self.resize_mode == "shortest" and target_height == target_width:
            # torchvision's Resize(int) truncates the longer side
            short, long = min(width, height), max(width, height)
            scaled = int(target_width * long / short)
            new = (target_width, scaled) if width <= height else (scaled, target_height)
        else:
            ratios = (height / target_height, width / target_width)
            if self.resize_mode == "longest":
                ratio = max(ratios)
            else:
                ratio = min(ratios)
                resample = _FILTERS["bicubic"]  # open_clip ignores the setting for this case
            new = (max(1, round(width / ratio)), max(1, round(height / ratio)))
        if new[0] * new[1] > _MAX_RESIZED:
            raise SampleError(
                f"a picture of {width}x{height} pixels would be resized to {new[0]}x{new[1]}; "
                f"allowed: at most {_MAX_RESIZED} pixels",
                "oversized",
            )
        return image.resize(new, resample)


def decode_image(data: bytes, *, name: str, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Decode an encoded picture as open_clip does: to RGB, transparency dropped, no rotation.

    Args:
        data: bytes of a JPEG, PNG, WebP, GIF, BMP, TIFF, PPM, AVIF, JPEG 2000 or ICO file.
        name: of the sample, for the message.
        max_pixels: larger pictures are refused before they are decoded.

    Raises:
        SampleError: naming the sample; the bytes are no whole picture, or too large a one.
    """
    try:
        with Image.open(io.BytesIO(data), formats=_available()) as image:
            width, height = image.size
            if width * height > max_pixels:
                raise too_many_pixels(name, (width, height), max_pixels)
            if image.mode == "P" and "transparency" in image.info:
                image.apply_transparency()  # Pillow warns otherwise; the colours stay
            return image.convert("RGB")
    except SampleError:
        raise
    except UnidentifiedImageError:
        fault: Fault = "corrupt" if data else "empty"
        raise SampleError(f"{name}: not a picture ({len(data)} bytes)", fault) from None
    except Exception as error:  # a decoder may raise anything on broken bytes
        raise SampleError(f"{name}: {type(error).__name__}: {error}") from None


def too_many_pixels(name: str, size: tuple[int, int], max_pixels: int) -> SampleError:
    """What is wrong with a picture of this width and height."""
    return SampleError(
        f"{name}: {size[0]}x{size[1]} pixels; allowed: at most {max_pixels}", "oversized"
    )


def _available() -> list[str]:
    Image.init()
    return [name for name in _FORMATS if name in Image.OPEN]


def _center_crop_or_pad(image: Image.Image, size: tuple[int, int], fill: int) -> Image.Image:
    """torchvision's center_crop, open_clip's center_crop_or_pad."""
    crop_height, crop_width = size
    width, height = image.size
    if crop_width > width or crop_height > height:
        across, down = max(crop_width - width, 0), max(crop_height - height, 0)
        border = (across // 2, down // 2, (across + 1) // 2, (down + 1) // 2)
        bands = len(image.getbands())
        image = ImageOps.expand(image, border, fill if bands == 1 else (fill,) * bands)
        width, height = image.size
    top = round((height - crop_height) / 2.0)
    left = round((width - crop_width) / 2.0)
    return image.crop((left, top, left + crop_width, top + crop_height))


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
