"""``ptft index`` and ``/v1/search``: the nearest rows by this model, and none by another."""

import base64
import os
from pathlib import Path

import numpy as np
import pytest
from starlette.testclient import TestClient

from ptft.artifact import ModelInfo, read_model_info
from ptft.errors import ArtifactError, DigestError, UsageError
from ptft.index import read_picture_index_info
from ptft.index.build import index_pictures
from ptft.model import DualEncoder
from serving.model import open_index
from serving.settings import Settings
from tests.serving.conftest import Client, checkpoint_images, checkpoint_texts, make_index


@pytest.fixture(scope="module")
def own(folder: Path, pictures: list[bytes], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An index of six pictures, made from a folder with others that are none: a pipe, which would
    be waited for, and a link to a device, which has no end."""
    place = tmp_path_factory.mktemp("own")
    for number, data in enumerate(pictures):
        path = place / "pictures" / f"{number % 2}" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    (place / "pictures" / "broken.jpg").write_bytes(b"no picture")
    os.mkfifo(place / "pictures" / "pipe.png")
    (place / "pictures" / "endless.png").symlink_to("/dev/zero")
    (place / "pictures" / "notes.txt").write_text("passed over")
    made = index_pictures(folder, place / "pictures", place / "index", thumbnails=16)
    assert made == read_picture_index_info(place / "index")
    assert made.count == len(pictures)
    return place / "index"


def test_pictures_are_found_by_themselves_and_by_texts(
    client: Client, model: DualEncoder, own: Path, pictures: list[bytes], info: ModelInfo
) -> None:
    names = sorted(f"{number % 2}/{number}.png" for number in range(len(pictures)))
    rows = checkpoint_images(model, [pictures[int(name[2])] for name in names])
    text = checkpoint_texts(model, ["a red thing"])[0]
    with client(index=own) as ask:
        assert ask.get("/v1/about").json()["index"] == len(pictures)
        for query, sent in (
            (text, {"json": {"query": "a red thing", "k": 4}}),
            (text, {"json": {"query": {"text": "a red thing"}, "k": 4}}),
            (rows[2], {"json": {"query": {"image": b64(pictures[int(names[2][2])])}, "k": 4}}),
            (rows[2], {"files": {"images": pictures[int(names[2][2])]}, "data": {"k": 4}}),
            (rows[2], raw(pictures[int(names[2][2])])),
        ):
            path = "/v1/search?k=4" if "content" in sent else "/v1/search"
            answer = ask.post(path, **sent)
            assert answer.status_code == 200, answer.text
            found = answer.json()
            expected = rows @ query
            order = np.argsort(-expected, kind="stable")[:4]
            assert [one["name"] for one in found["results"]] == [names[row] for row in order]
            cosines = [one["cosine"] for one in found["results"]]
            np.testing.assert_allclose(cosines, expected[order], rtol=0, atol=1e-5)
            assert (found["count"], found["digest"]) == (len(pictures), info.digest)
            assert "thumbnail" not in found["results"][0]
        shown = ask.post("/v1/search", json={"query": "a", "k": 99, "thumbnails": True}).json()
        assert len(shown["results"]) == len(pictures)
        start = "data:image/jpeg;base64,"
        assert all(one["thumbnail"].startswith(start) for one in shown["results"])
        assert (
            base64.b64decode(shown["results"][0]["thumbnail"].removeprefix(start))[:2]
            == b"\xff\xd8"
        )


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def raw(data: bytes) -> dict[str, object]:
    return {"content": data, "headers": {"content-type": "image/png"}}


@pytest.mark.parametrize(
    ("body", "status", "about"),
    [
        ({"query": "a", "k": 0}, 422, "k"),
        ({"query": "a", "k": 1001}, 422, "k"),
        ({"query": ["a", "b"]}, 422, "query"),
        ({"query": []}, 422, "query"),
        ({"query": {"image": "AAAA"}}, 422, "query[0].image"),
        ({"k": 3}, 422, "query"),
        ({"query": "a", "top": 3}, 422, "top"),
    ],
)
def test_what_is_wrong_is_said(
    plain_client: TestClient, body: object, status: int, about: str | None
) -> None:
    answer = plain_client.post("/v1/search", json=body)
    assert (answer.status_code, answer.json()["error"]["param"]) == (status, about)


def test_without_an_index_the_route_says_so(client: Client) -> None:
    with client(max_batch=8) as ask:
        answer = ask.post("/v1/search", json={"query": "a"})
        assert (answer.status_code, answer.json()["error"]["type"]) == (404, "no_index")
        assert ask.get("/v1/about").json()["index"] is None


def test_an_index_of_another_model_stops_the_start(
    folder: Path, info: ModelInfo, own: Path, sketched: Path, tmp_path: Path
) -> None:

    other = make_index(read_model_info(sketched), tmp_path / "other")
    assert open_index(Settings(model=folder), info) is None
    with pytest.raises(DigestError, match="embeddings of two models do not compare"):
        open_index(Settings(model=folder, index=other), info)
    with pytest.raises(DigestError, match="in int8"):
        open_index(Settings(model=folder, index=own, precision="int8"), info)
    with pytest.raises(ArtifactError, match=r"PTFT_INDEX=.*no such folder"):
        open_index(Settings(model=folder, index=tmp_path / "none"), info)


def test_what_cannot_be_indexed_is_refused(folder: Path, own: Path, tmp_path: Path) -> None:
    for given, says in (
        ((folder, tmp_path / "none", tmp_path / "out"), "no such folder of pictures"),
        ((folder, tmp_path, tmp_path / "out"), "no picture that can be read"),
        ((folder, own.parent / "pictures", own), "allowed: a new folder"),
    ):
        with pytest.raises(UsageError, match=says):
            index_pictures(*given)
    with pytest.raises(UsageError, match="fp32"):
        index_pictures(folder, tmp_path, tmp_path / "out", precision="fp99")
