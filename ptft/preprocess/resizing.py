"""A picture to the size that a model takes: resize, then crop or pad.

A picture 1 pixel high would be resized to gigabytes before all but its middle is cropped away.
Where the resized picture would be that large, only the part that stays is made: the same samples,
though Pillow may resize rows before columns and so clip what overshoots at another place.
"""

import math
from typing import Literal

from PIL import Image, ImageOps

__all__ = ["DCT_SAFETY", "ResizeMode", "fit", "least_size", "resized_size"]

ResizeMode = Literal["shortest", "longest", "squash"]

DCT_SAFETY = 3.0
"""A JPEG may be reduced while it is decoded as long as each side stays this many times what it is
resized to. Measured with MobileNetV2 on real photos (tests/preprocess/test_reduced.py): embeddings
then stay within a cosine of 0.9995 of those of the whole picture; at 2.0 they do not (0.9992)."""

CROP_FIRST = 1 << 22  # pixels of a resized picture, which only a very long and thin one has


def resized_size(
    size: tuple[int, int], target: tuple[int, int], mode: ResizeMode
) -> tuple[int, int]:
    """Width and height that a picture of this width and height is resized to, before the crop.

    Args:
        target: height and width that the model takes.
    """
    width, height = size
    target_height, target_width = target
    if mode == "squash":
        return target_width, target_height
    if mode == "shortest" and target_height == target_width:
        # torchvision's Resize(int) truncates the longer side
        scaled = int(target_width * max(size) / min(size))
        return (target_width, scaled) if width <= height else (scaled, target_height)
    ratios = (height / target_height, width / target_width)
    ratio = max(ratios) if mode == "longest" else min(ratios)
    return max(1, round(width / ratio)), max(1, round(height / ratio))


def least_size(size: tuple[int, int], target: tuple[int, int]) -> tuple[int, int]:
    """Width and height that a picture of ``size`` may be reduced to before it is resized, whichever
    way up it is and whatever the mode: ``DCT_SAFETY`` times what it is resized to at most."""
    width, height = size
    largest = max(max(target) / width, max(target) / height)
    share = min(1.0, DCT_SAFETY * largest)
    return math.ceil(width * share), math.ceil(height * share)


def fit(
    image: Image.Image,
    target: tuple[int, int],
    mode: ResizeMode,
    resample: Image.Resampling,
    fill: int,
) -> Image.Image:
    """Resize, then crop what is too much and pad what is too little.

    Args:
        target: height and width that the model takes.
        fill: brightness (0 to 255) of what is padded with.
    """
    height, width = target
    new = resized_size(image.size, target, mode)
    if mode == "squash":
        return image.resize(new, resample)
    if new[0] * new[1] > CROP_FIRST and new[0] >= width and new[1] >= height:
        left, top = round((new[0] - width) / 2.0), round((new[1] - height) / 2.0)
        across, down = image.width / new[0], image.height / new[1]
        right, bottom = (left + width) * across, (top + height) * down
        box = (left * across, top * down, min(right, image.width), min(bottom, image.height))
        return image.resize((width, height), resample, box)
    return _center_crop_or_pad(image.resize(new, resample), target, fill)


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
