"""A model, its folder, and the service on it: in this process, and as its own."""

import io
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from starlette.testclient import TestClient

from ptft.artifact import ModelInfo, read_model_info
from ptft.model import DualEncoder
from serving.routes import create_app
from serving.settings import Settings
from tests.serving.checkpoint import make_model
from tests.serving.server import Server, serve, wait_until_ready


@pytest.fixture(scope="session")
def model() -> DualEncoder:
    """The checkpoint: a classifier of three classes, which embeds as well."""
    return make_model()


@pytest.fixture(scope="session")
def folder(classifier_folder: Path) -> Path:
    """The checkpoint's model folder."""
    return classifier_folder


@pytest.fixture(scope="session")
def info(folder: Path) -> ModelInfo:
    return read_model_info(folder)


@pytest.fixture(scope="session")
def server(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A running service."""
    home = tmp_path_factory.mktemp("server")
    with serve(home, {"PTFT_MODEL": str(folder), "PTFT_THREADS": "1"}) as running:
        yield running


Client = Callable[..., AbstractContextManager[TestClient]]


@contextmanager
def _start(settings: Settings) -> Iterator[TestClient]:
    with TestClient(create_app(lambda: settings)) as asking:
        wait_until_ready(asking)
        yield asking


@pytest.fixture(scope="session")
def plain_client(folder: Path) -> Iterator[TestClient]:
    """The app in this process, with the settings that it has by default."""
    with _start(Settings(model=folder)) as asking:
        yield asking


@pytest.fixture
def client(folder: Path, plain_client: TestClient) -> Client:
    """``client()`` is the one above; ``client(max_batch=2)`` is one of the test's own."""

    def start(**settings: object) -> AbstractContextManager[TestClient]:
        if not settings:
            return nullcontext(plain_client)
        return _start(replace(Settings(model=folder), **settings))  # type: ignore[arg-type]

    return start


@pytest.fixture(scope="session")
def pictures() -> list[bytes]:
    """Six PNGs of noise, of different sizes."""
    return noise_pictures(6)


def noise_pictures(count: int) -> list[bytes]:
    """PNGs of noise, of different sizes."""
    rng = np.random.default_rng(0)
    encoded = []
    for index in range(count):
        size = (40 + 7 * index, 64 - 3 * index, 3)
        stream = io.BytesIO()
        Image.fromarray(rng.integers(0, 256, size, dtype=np.uint8)).save(stream, "PNG")
        encoded.append(stream.getvalue())
    return encoded


@torch.no_grad()
def checkpoint_images(model: DualEncoder, encoded: list[bytes]) -> NDArray[np.float32]:
    """What the checkpoint itself makes of images, by torch: (N, D), L2-normalised."""
    rows = [model.spec.preprocess(Image.open(io.BytesIO(data)).convert("RGB")) for data in encoded]
    return F.normalize(model.encode_image(torch.from_numpy(np.stack(rows))), dim=-1).numpy()


@torch.no_grad()
def checkpoint_texts(model: DualEncoder, texts: list[str]) -> NDArray[np.float32]:
    """The same of texts."""
    tokens = torch.from_numpy(model.spec.tokenizer(texts))
    return F.normalize(model.encode_text(tokens), dim=-1).numpy()
