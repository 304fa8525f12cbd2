"""Two models, a service on the better one, and a probe set that tells them apart."""

import io
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ptft.export import export_model
from ptft.gate.answering import FolderAnswers
from ptft.model import save_model
from tests.serving.server import Server, serve_plain
from tests.support import tiny


@pytest.fixture(scope="session")
def good(classifier_folder: Path) -> Path:
    """The model that serves."""
    return classifier_folder


@pytest.fixture(scope="session")
def worse(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another one of the same shape: to the probe set it is random weights."""
    place = tmp_path_factory.mktemp("worse")
    save_model(tiny.build(tiny.arch_section("tiny-vit"), seed=11), place / "checkpoint")
    export_model(place / "checkpoint", place / "model", name="worse", precisions=())
    return place / "model"


def noise(count: int) -> list[bytes]:
    """JPEGs and PNGs of smooth noise, of different colours and sizes."""
    rng = np.random.default_rng(5)
    encoded = []
    for at in range(count):
        coarse = rng.integers(0, 256, (4, 4, 3), dtype=np.uint8)
        picture = Image.fromarray(coarse).resize((90 + at, 70), Image.Resampling.BICUBIC)
        stream = io.BytesIO()
        picture.save(stream, "JPEG" if at % 2 else "PNG")
        encoded.append(stream.getvalue())
    return encoded


@pytest.fixture(scope="session")
def labelled(good: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures with the classes that the good model gives them: it scores 1, chance scores less."""
    place = tmp_path_factory.mktemp("labelled")
    pictures = noise(24)
    names = [f"{at:02}.{'jpg' if at % 2 else 'png'}" for at in range(len(pictures))]
    found = FolderAnswers(good, "fp32", 1).classes(names, pictures, ["cat", "dog", "red circle"])
    assert len(set(found)) > 1
    with (place / "metadata.jsonl").open("w") as table:
        for name, data, label in zip(names, pictures, found, strict=True):
            (place / name).write_bytes(data)
            table.write(json.dumps({"file_name": name, "label": label}) + "\n")
    return place


@pytest.fixture(scope="session")
def captioned(good: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures with captions, flat: NAME.png beside NAME.txt."""
    place = tmp_path_factory.mktemp("captioned")
    for at, data in enumerate(noise(12)[::2]):
        (place / f"{at}.png").write_bytes(data)
        (place / f"{at}.txt").write_text(f"a photo of {at}\nnumber {at}\n")
    return place


@pytest.fixture(scope="session")
def live(good: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A running service of the good model."""
    settings = {"PTFT_MODEL": str(good), "PTFT_THREADS": "1"}
    with serve_plain(tmp_path_factory.mktemp("live"), settings) as running:
        yield running
