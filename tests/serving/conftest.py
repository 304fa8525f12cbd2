"""A model, its folder, and the service on it: in this process, and as its own."""

import io
import shutil
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
from safetensors.numpy import save_file
from starlette.testclient import TestClient

from ptft.artifact import FolderFiles, ModelInfo, hash_files, read_model_info, write_model_info
from ptft.index import IndexInfo, write_picture_index
from ptft.model import DualEncoder
from ptft.onnx.model import OnnxModel
from ptft.sketch import Sketches, make_confidence, make_sketch
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


def grey(count: int, seed: int, *, light: int) -> NDArray[np.uint8]:
    """Noise about a grey: (N, 32, 32, 3)."""
    rng = np.random.default_rng(seed)
    levels = rng.integers(light - 30, light + 30, (count, 1, 1, 3))
    noise = rng.integers(-20, 20, (count, 32, 32, 3))
    return (levels + noise).clip(0, 255).astype(np.uint8)


@pytest.fixture(scope="session")
def sketched(folder: Path, info: ModelInfo, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model's folder, as if it had been trained on light pictures."""
    copy = tmp_path_factory.mktemp("sketched") / "model"
    shutil.copytree(folder, copy)
    model = OnnxModel(copy, info, "fp32", 1)
    parts = []
    for seed in (0, 1):
        pixels = grey(150, seed, light=180)
        images = model.encode_images(list(model.preprocess.normalise(pixels)))
        parts.append((images, model.head_probabilities(images)))
    (train, train_nc), (held, held_nc) = parts
    sketches = Sketches(
        image=make_sketch(train, held), confidence=make_confidence(train_nc, held_nc)
    )
    save_file(sketches.tensors(), copy / FolderFiles.SKETCH)
    write_model_info(copy, replace(info, files=hash_files(copy)))
    return copy


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


def make_index(info: ModelInfo, folder: Path) -> Path:
    """An index of 40 rows that are no pictures', each with a thumbnail."""
    rows = np.random.default_rng(3).standard_normal((40, info.embed_dim)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    made = IndexInfo(info.name, info.digest, "fp32", len(rows), info.embed_dim)
    names = [f"shelf {row % 7}/{row}.jpg" for row in range(len(rows))]
    stream = io.BytesIO()
    Image.new("RGB", (24, 16), "teal").save(stream, "JPEG")
    write_picture_index(folder, made, rows, names, [stream.getvalue()] * len(rows))
    return folder


@pytest.fixture(scope="session")
def index(info: ModelInfo, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One for the model."""
    return make_index(info, tmp_path_factory.mktemp("index") / "index")


@pytest.fixture(scope="session")
def plain_client(folder: Path, index: Path) -> Iterator[TestClient]:
    """The app in this process, with an index and the settings that it has by default."""
    with _start(Settings(model=folder, index=index)) as asking:
        yield asking


@pytest.fixture(scope="session")
def detector_client(detector_folder: Path) -> Iterator[TestClient]:
    """The app in this process with a detector, and room for eight pictures in a request."""
    with _start(Settings(model=detector_folder, max_batch=8)) as asking:
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
