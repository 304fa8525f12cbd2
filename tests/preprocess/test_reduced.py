"""JPEGs that are reduced while they are decoded: embeddings stay what they are."""

import io
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import load_file

from ptft.compat import import_timm
from ptft.preprocess import ImagePreprocess, decode_image
from ptft.preprocess.resizing import DCT_SAFETY, least_size

PREPROCESS = ImagePreprocess(mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
COSINE = 0.9995


@pytest.fixture(scope="module")
def tower(shared_data: Path) -> torch.nn.Module:
    """MobileNetV2 with its pretrained weights."""
    timm = import_timm()
    tower = timm.create_model("mobilenetv2_100", num_classes=1001, pad_type="same")
    file = shared_data / "mobilenetv2" / "mobilenetv2_100.safetensors"
    tower.load_state_dict({name: value.float() for name, value in load_file(file).items()})
    return tower.eval()


def photos(shared_data: Path, count: int) -> list[Image.Image]:
    with tarfile.open(shared_data / "grocery" / "val-000000.tar") as archive:
        files = [member for member in archive if member.name.endswith(".jpg")]
        step = len(files) // count
        opened = [archive.extractfile(member) for member in files[: step * count : step]]
        return [Image.open(io.BytesIO(one.read())) for one in opened if one is not None]


def jpeg(photo: Image.Image, side: int) -> bytes:
    stream = io.BytesIO()
    photo.resize((side, side), Image.Resampling.BICUBIC).save(stream, "JPEG", quality=90)
    return stream.getvalue()


@torch.no_grad()
def embedding(tower: torch.nn.Module, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    features = tower.forward_features(torch.from_numpy(PREPROCESS.normalise(pixels))[None])  # type: ignore[operator]
    row = tower.forward_head(features, pre_logits=True)[0]  # type: ignore[operator]
    return (row / row.norm()).numpy()


@pytest.mark.parametrize("side", [1400, 2900])  # reduced by 2 and by 4, hardly above the bound
def test_embeddings_stay(tower: torch.nn.Module, shared_data: Path, side: int) -> None:
    cosines = []
    for photo in photos(shared_data, 6):
        data = jpeg(photo, side)
        least = PREPROCESS.least_size((side, side))
        reduced = decode_image(data, name="a", least=least)
        assert least[0] <= reduced.width < side
        whole = decode_image(data, name="a")
        rows = [embedding(tower, PREPROCESS.pixels(image)) for image in (reduced, whole)]
        cosines.append(float(rows[0] @ rows[1]))
    assert min(cosines) >= COSINE and min(cosines) < 1


@pytest.mark.parametrize("size", [(4000, 3000), (300, 4000), (224, 224), (9, 9), (5000, 700)])
@pytest.mark.parametrize("mode", ["shortest", "longest", "squash"])
def test_nothing_is_reduced_below_what_the_model_takes(size: tuple[int, int], mode: str) -> None:
    target = (224, 160)
    preprocess = ImagePreprocess(size=target, resize_mode=mode)  # type: ignore[arg-type]
    least = preprocess.least_size(size)
    assert least == least_size(size, target)
    assert all(least[axis] <= size[axis] for axis in (0, 1))
    if least != size:  # either way up
        assert min(least) >= DCT_SAFETY * max(target) - 1


def test_other_formats_and_small_pictures_are_decoded_whole() -> None:
    image = Image.effect_noise((900, 900), 50).convert("RGB")
    for form, whole in (("PNG", True), ("JPEG", False)):
        image.save(stream := io.BytesIO(), form)
        read = decode_image(stream.getvalue(), name="a", least=(300, 300))
        assert (read.size == image.size) is whole
    image.save(stream := io.BytesIO(), "JPEG")
    read = decode_image(stream.getvalue(), name="a", least=(451, 451))
    assert read.size == image.size
