"""A service reads pictures as its model folder states: upright, deep greyscale scaled; or as it was
before folders said so."""

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

from ptft.artifact import FolderFiles, ModelInfo, read_json, read_model_info, write_model_info
from ptft.preprocess import ImagePreprocess
from ptft.preprocess.decoding import OLDER, READING
from serving.routes import create_app
from serving.settings import Settings
from tests.serving.conftest import Client
from tests.serving.server import wait_until_ready
from tests.support.picture_files import STORED, encode, exif_of, upright

GREY = np.tile(np.arange(256, dtype=np.uint16), (64, 1))


@pytest.fixture(scope="module")
def older(folder: Path, info: ModelInfo, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same model, exported before models said how they read."""
    place = tmp_path_factory.mktemp("older") / "model"
    shutil.copytree(folder, place)
    preprocess = {key: value for key, value in info.preprocess.items() if key != "reading"}
    write_model_info(place, replace(info, preprocess=preprocess))
    return place


@pytest.fixture(scope="module")
def older_client(older: Path) -> Iterator[TestClient]:
    with TestClient(create_app(lambda: Settings(model=older))) as asking:
        wait_until_ready(asking)
        yield asking


def embed(client: TestClient, *pictures: bytes) -> np.ndarray:
    answer = client.post("/v1/embed/image", files=[("images", data) for data in pictures])
    assert answer.status_code == 200, answer.text
    return np.array([one["embedding"] for one in answer.json()["results"]])


def lying(orientation: int, *, tagged: bool) -> bytes:
    turn = STORED[orientation]
    picture = upright() if turn is None else upright().transpose(turn)
    return encode(picture, "PNG", **({"exif": exif_of(orientation)} if tagged else {}))


def test_pictures_are_upright(plain_client: TestClient, older_client: TestClient) -> None:
    (right,) = embed(plain_client, encode(upright(), "PNG"))
    for row in embed(plain_client, *(lying(one, tagged=True) for one in STORED)):
        np.testing.assert_allclose(row, right, rtol=0, atol=1e-6)
    tagged = embed(older_client, *(lying(one, tagged=True) for one in STORED))
    plain = embed(plain_client, *(lying(one, tagged=False) for one in STORED))
    np.testing.assert_allclose(tagged, plain, rtol=0, atol=1e-6)
    assert np.abs(plain[1:] - right).max(axis=1).min() > 1e-3  # or nothing would show


def test_deep_greyscale_is_scaled(
    client: Client, plain_client: TestClient, older_client: TestClient
) -> None:
    deep = encode(Image.fromarray(GREY * 257), "PNG")
    rows = [encode(Image.fromarray(GREY.astype(np.uint8)), "PNG"), deep]
    right, scaled = embed(plain_client, *rows)
    np.testing.assert_allclose(scaled, right, rtol=0, atol=1e-6)
    (cut,) = embed(older_client, deep)
    assert cut @ right < 0.999
    floats = encode(Image.fromarray(GREY.astype(np.float32)), "TIFF")
    with client(formats=("tiff",)) as ask:
        answer = ask.post("/v1/embed/image", files=[("images", floats)])
    assert answer.status_code == 422
    message = answer.json()["results"][0]["error"]["message"]
    assert message.startswith("images[0]: greyscale of float samples (mode F): 0 to 255; allowed")


def test_older_folders_keep_their_digest(folder: Path, older: Path, info: ModelInfo) -> None:
    recorded = read_json(older / FolderFiles.INFO)
    assert "reading" not in recorded["preprocess"]
    assert read_model_info(older).digest == recorded["digest"] != info.digest
    assert ImagePreprocess.from_config(recorded["preprocess"]).reading == OLDER
    assert ImagePreprocess.from_config(info.preprocess).reading == READING
    theirs = read_json(folder / FolderFiles.OPEN_CLIP_CONFIG)["preprocess_cfg"]
    assert theirs == recorded["preprocess"]
