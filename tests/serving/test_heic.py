"""HEIC, where the extra is installed (``pip install 'ptft[heic]'``) and the setting has it."""

import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ptft.errors import SampleError
from ptft.preprocess import ImagePreprocess
from serving.pictures import Picture, Pictures
from serving.settings import read_settings

pytest.importorskip("pillow_heif", reason="pip install 'ptft[heic]'")
SETTINGS = {"PTFT_FORMATS": "png,jpeg,heic"}


@pytest.fixture(scope="module")
def rules() -> Pictures:
    return Pictures(read_settings(SETTINGS), ImagePreprocess())


def soft(mode: str = "RGB") -> Image.Image:
    """Something that hardly suffers from being compressed."""
    rng = np.random.default_rng(0)
    small = Image.fromarray(rng.integers(0, 256, (12, 16, 3), dtype=np.uint8))
    image = small.resize((320, 240), Image.Resampling.BICUBIC)
    if mode == "RGBA":
        image.putalpha(Image.linear_gradient("L").resize(image.size))
    return image


def encoded(image: Image.Image, form: str, turned: int = 1) -> bytes:
    exif = image.getexif()
    exif[0x0112] = turned
    stream = io.BytesIO()
    options = {} if turned == 1 else {"exif": exif.tobytes()}
    if form == "HEIF":
        options["enc_params"] = {"preset": "ultrafast"}
    image.save(stream, form, quality=95, **options)
    return stream.getvalue()


def pixels(rules: Pictures, data: bytes) -> np.ndarray:
    picture = rules.look(data, "images[0]")
    assert isinstance(picture, Picture), picture
    found = rules.decode(picture)
    assert isinstance(found, np.ndarray), found
    return found.astype(int)


@pytest.mark.parametrize(("mode", "other"), [("RGB", "JPEG"), ("RGBA", "PNG")])
@pytest.mark.parametrize("turned", [1, 6])
def test_it_is_read_as_other_formats_are(
    rules: Pictures, mode: str, other: str, turned: int
) -> None:
    heic, same = (encoded(soft(mode), form, turned) for form in ("HEIF", other))
    assert np.abs(pixels(rules, heic) - pixels(rules, same)).mean() < 2.0  # of 255


def test_one_that_is_cut_fails_alone(rules: Pictures) -> None:
    whole = encoded(soft(), "HEIF")
    picture = rules.look(whole[: len(whole) // 2], "images[3]")
    assert isinstance(picture, Picture)
    error = rules.decode(picture)
    assert isinstance(error, SampleError) and str(error).startswith("images[3]: ")


PEAK = """
import sys
from ptft.preprocess import ImagePreprocess
from serving.pictures import Pictures
from serving.settings import read_settings
rules = Pictures(read_settings({"PTFT_FORMATS": "heic"}), ImagePreprocess())
def peak():
    lines = open("/proc/self/status").read().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("VmHWM"))
small, large = (rules.look(open(name, "rb").read(), "x") for name in sys.argv[1:])
rules.decode(small)
before = peak()
rules.decode(large)
print((peak() - before) / large.memory)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_decoding_takes_no_more_than_is_charged(mode: str, tmp_path: Path) -> None:
    for name, size in (("small", (64, 48)), ("large", (1200, 900))):
        data = encoded(soft(mode).resize(size), "HEIF")
        (tmp_path / name).write_bytes(data)
    run = [sys.executable, "-c", PEAK, str(tmp_path / "small"), str(tmp_path / "large")]
    told = subprocess.run(run, capture_output=True, check=True, text=True).stdout
    assert 0.1 < float(told) <= 1.0
