"""What the tests of ``ptft data look`` share: pictures on disk, and rows of a page."""

import re
from pathlib import Path

import numpy as np
from PIL import Image

from ptft.look import DataPage
from tests.support.pages import Read
from tests.support.picture_files import encode

__all__ = ["noise", "put", "read", "rows"]


def noise(seed: int, size: tuple[int, int] = (48, 32)) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), np.uint8)
    return Image.fromarray(pixels)


def put(path: Path, data: bytes | Image.Image) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data if isinstance(data, bytes) else encode(data, "PNG"))
    return path


def read(looked: DataPage) -> Read:
    return Read(looked.page)


def rows(page: Read) -> list[str]:
    """Words of each row of each table."""
    found: list[str] = []
    inside = re.findall(r"<tr.*?</tr>", page.source, re.DOTALL)
    for row in inside:
        found.append(" ".join(text.strip() for _, text in Read(row).texts if text.strip()))
    return found
