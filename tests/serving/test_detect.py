"""``/v1/detect``: what the checkpoint finds, by classes, labels and examples; and its refusals."""

import base64
import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from starlette.testclient import TestClient

from ptft.artifact import GoldenKeys, read_model_info
from ptft.client import ServiceClient
from ptft.model import DualEncoder
from ptft.model.detecting import query_embeddings
from ptft.onnx.boxes import FoundBoxes, place_query
from ptft.preprocess.frame import frame_of
from ptft.verify.link import Artefact
from ptft.verify.service import check_service
from tests.serving.server import serve_plain
from tests.support.detectors import COUNTING, counting_detector
from tests.support.torch_boxes import best_boxes

SIZES = [(90, 60), (50, 80), (64, 64)]


@pytest.fixture(scope="module")
def finder() -> DualEncoder:
    return counting_detector()


@pytest.fixture
def asking(detector_client: TestClient) -> TestClient:
    return detector_client


@pytest.fixture(scope="module")
def scenes() -> list[bytes]:
    """PNGs of coarse noise, of different shapes."""
    rng = np.random.default_rng(3)
    found = []
    for size in SIZES:
        small = Image.fromarray(rng.integers(0, 256, (5, 7, 3), np.uint8))
        found.append(encoded(small.resize(size, Image.Resampling.BICUBIC)))
    return found


def encoded(image: Image.Image, kind: str = "PNG", **more: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **more)
    return stream.getvalue()


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


@torch.no_grad()
def wanted(
    model: DualEncoder, data: bytes, queries_qd: torch.Tensor, **options: float
) -> FoundBoxes:
    """What the checkpoint finds in a picture, by torch."""
    picture = Image.open(io.BytesIO(data)).convert("RGB")
    preprocess = model.spec.preprocess
    found = model.detect(torch.from_numpy(preprocess(picture)[None]), queries_qd)
    frame = frame_of(picture.size, preprocess.size, preprocess.resize_mode)
    return best_boxes(found.logits[0], found.boxes[0], frame, **options)


def hold(boxes: list[dict], expected: FoundBoxes, names: list[str]) -> None:
    assert [one["label"] for one in boxes] == [names[n] for n in expected.labels]
    np.testing.assert_allclose([one["score"] for one in boxes], expected.scores, atol=1e-4)
    np.testing.assert_allclose([one["box"] for one in boxes], expected.corners, atol=2e-2)


def test_own_classes_and_labels_are_found_as_the_checkpoint_finds_them(
    asking: TestClient, finder: DualEncoder, scenes: list[bytes]
) -> None:
    own = ["red circle", "blue square"]
    with torch.no_grad():
        queries = query_embeddings(finder, own, ["a {}"])
    files = [("images", data) for data in scenes]
    answer = asking.post("/v1/detect", files=files, data={"threshold": "0", "most": "7"})
    assert answer.status_code == 200, answer.text
    results = answer.json()["results"]
    for one, data, size in zip(results, scenes, SIZES, strict=True):
        assert (one["width"], one["height"]) == size
        expected = wanted(finder, data, queries, most=7, nms=COUNTING.nms)  # the model's own
        hold(one["boxes"], expected, own)
    labels, templates = ["a cat", "red circle", "dog"], ["the {}", "{}!"]
    with torch.no_grad():
        queries = query_embeddings(finder, labels, templates)
    body = {"images": [b64(scenes[0])], "labels": labels, "templates": templates}
    options = {"threshold": 0.3, "most": 20, "nms": 0.5}
    (found,) = asking.post("/v1/detect", json=body | options).json()["results"]
    hold(found["boxes"], wanted(finder, scenes[0], queries, **options), labels)
    assert asking.post("/v1/detect", json=body | {"threshold": 1.0}).json()["results"] == [
        {"index": 0, "width": 90, "height": 60, "boxes": []}
    ]
    sent = {"content": scenes[1], "headers": {"content-type": "image/png"}}
    assert len(asking.post("/v1/detect?most=1&threshold=0", **sent).json()["results"][0]["boxes"])


def test_an_example_is_looked_for_beside_labels(
    asking: TestClient, finder: DualEncoder, scenes: list[bytes]
) -> None:
    crop = encoded(Image.open(io.BytesIO(scenes[0])).crop((10, 10, 50, 50)))
    with torch.no_grad():
        pixels = finder.spec.preprocess(Image.open(io.BytesIO(crop)))[None]
        assert finder.detector is not None
        rows = finder.detector.rows(finder.image, torch.from_numpy(pixels))[0].numpy()
        text = query_embeddings(finder, ["dog"], ["a {}"])
    example = torch.from_numpy(place_query(rows))[None]
    files = [("images", scenes[1]), ("examples", crop)]
    options = {"threshold": "0", "most": "5"}
    (alone,) = asking.post("/v1/detect", files=files, data=options).json()["results"]
    expected = wanted(finder, scenes[1], example, most=5, nms=COUNTING.nms)
    assert [one["example"] for one in alone["boxes"]] == [0] * 5
    assert all("label" not in one for one in alone["boxes"])
    np.testing.assert_allclose([one["score"] for one in alone["boxes"]], expected.scores, atol=1e-4)
    body = {"images": [b64(scenes[1])], "examples": [b64(crop)], "labels": ["dog"]}
    body |= {"threshold": 0.0, "most": 9, "nms": 1}
    (both,) = asking.post("/v1/detect", json=body).json()["results"]
    expected = wanted(finder, scenes[1], torch.cat([text, example]), most=9)
    assert [one.get("label", one.get("example")) for one in both["boxes"]] == [
        ["dog", 0][n] for n in expected.labels
    ]


def test_boxes_are_of_the_upright_picture_and_of_its_whole_size(
    asking: TestClient, scenes: list[bytes]
) -> None:
    """Of a JPEG that EXIF turns, and that is decoded at a part of its size."""
    large = Image.open(io.BytesIO(scenes[0])).resize((1200, 800))
    exif = Image.Exif()
    exif[0x0112] = 6  # stored lying
    lying = encoded(large, "JPEG", exif=exif, quality=95)
    upright = encoded(large.transpose(Image.Transpose.ROTATE_270), "JPEG", quality=95)
    files = [("images", lying), ("images", upright)]
    one, two = asking.post("/v1/detect", files=files, data={"threshold": "0", "most": "3"}).json()[
        "results"
    ]
    assert (one["width"], one["height"]) == (two["width"], two["height"]) == (800, 1200)
    for mine, other in zip(one["boxes"], two["boxes"], strict=True):
        np.testing.assert_allclose(mine["box"], other["box"], atol=15)
    assert max(max(box["box"]) for box in two["boxes"]) > 200


def test_a_bad_picture_fails_alone_and_a_bad_example_the_request(
    asking: TestClient, scenes: list[bytes]
) -> None:
    files = [("images", scenes[0]), ("images", b"no picture")]
    answer = asking.post("/v1/detect", files=files)
    good, bad = answer.json()["results"]
    assert answer.status_code == 200 and "boxes" in good
    assert bad["error"]["type"] == "unreadable" and "images[1]" in bad["error"]["message"]
    assert asking.post("/v1/detect", files=files[1:]).status_code == 422
    files = [("images", scenes[0]), ("examples", b"no picture")]
    answer = asking.post("/v1/detect", files=files)
    assert answer.status_code == 422
    assert "examples[0]" in answer.json()["error"]["message"]


@pytest.mark.parametrize(
    ("body", "about"),
    [
        ({"threshold": 1.5}, "threshold"),
        ({"most": 0}, "most"),
        ({"nms": 0}, "nms"),
        ({"labels": ["a", "a"]}, "labels"),
        ({"templates": ["a"]}, "templates"),
        ({"treshold": 0.5}, "treshold"),
        ({"examples": []}, "examples"),
    ],
)
def test_what_is_wrong_is_said(
    asking: TestClient, scenes: list[bytes], body: dict[str, object], about: str
) -> None:
    answer = asking.post("/v1/detect", json={"images": [b64(scenes[0])], **body})
    assert (answer.status_code, answer.json()["error"]["param"]) == (422, about)


def test_limits_are_those_of_the_other_routes(asking: TestClient, scenes: list[bytes]) -> None:
    many = [b64(scenes[0])] * 5
    answer = asking.post("/v1/detect", json={"images": many, "examples": many[:4]})
    assert (answer.status_code, answer.json()["error"]["type"]) == (413, "too_many_items")
    labels = [f"{n}" for n in range(5000)]
    answer = asking.post("/v1/detect", json={"images": many[:1], "labels": labels})
    assert answer.status_code == 413


def test_a_model_without_a_detector_says_so(plain_client: TestClient, scenes: list[bytes]) -> None:
    answer = plain_client.post("/v1/detect", files={"images": scenes[0]})
    assert (answer.status_code, answer.json()["error"]["type"]) == (404, "no_detector")


def test_other_routes_and_the_golden_check_know_it(
    asking: TestClient, finder: DualEncoder, scenes: list[bytes]
) -> None:
    served = asking.get("/v1/model").json()
    assert (served["task"], served["classes"]) == ("detect", ["red circle", "blue square"])
    held = asking.get("/v1/golden").json()
    assert held["holds"]
    assert {GoldenKeys.DETECT_BOXES, GoldenKeys.DETECT_LOGITS} <= {
        one["what"] for one in held["checks"]
    }
    files = {"images": scenes[0]}
    classes = asking.post("/v1/classify", files=files).json()["results"][0]["classes"]
    assert {one["label"] for one in classes} == {"red circle", "blue square"}
    assert asking.post("/v1/embed/image", files=files).status_code == 200
    text = asking.get("/metrics").text
    assert 'ptft_batch_limit_items{kind="places"}' in text


def test_the_client_asks_for_boxes_and_verify_holds_them(
    detector_folder: Path, finder: DualEncoder, scenes: list[bytes], tmp_path: Path
) -> None:
    """Against a service that is a process of its own."""
    settings = {"PTFT_MODEL": str(detector_folder), "PTFT_THREADS": "1", "PTFT_MAX_BATCH": "3"}
    with serve_plain(tmp_path, settings) as server:
        with ServiceClient(server.url) as service:
            sent = [scenes[0], b"no picture", *scenes]
            found = service.detect(sent, labels=["dog", "cat"], threshold=0.0, most=4)
            (alike,) = service.detect(scenes[:1], examples=[scenes[1]], threshold=0.0, most=2)
        with torch.no_grad():
            queries = query_embeddings(finder, ["dog", "cat"], ["a {}"])
        expected = wanted(finder, scenes[2], queries, most=4, nms=COUNTING.nms)
        assert [one.label for one in found[4].boxes] == [["dog", "cat"][n] for n in expected.labels]
        np.testing.assert_allclose(
            [one.corners for one in found[4].boxes], expected.corners, atol=2e-2
        )
        assert found[4].size == SIZES[2] and found[0] == found[2]
        assert found[1].failed and not found[1].boxes
        assert [one.example for one in alike.boxes] == [0, 0]
        info = read_model_info(detector_folder)
        model = Artefact(str(detector_folder), digest=info.digest, folder=detector_folder)
        served, golden = check_service(server.url, model)
    assert (served.state, golden.state) == ("ok", "ok"), golden.detail
    assert GoldenKeys.DETECT_BOXES in golden.detail
