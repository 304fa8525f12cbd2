"""What each route is asked and answers, in this process."""

import base64
import io
import math
import time
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from ptft.artifact import ModelInfo
from ptft.model import DualEncoder, class_head
from ptft.onnx.model import OnnxModel
from tests.serving.conftest import Client, checkpoint_images, checkpoint_texts

TEXTS = ["a photo of a cat", "", "caf&eacute; 🐈 naïve", "very long " * 60]


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def rows(answer: httpx.Response, key: str = "results") -> NDArray[np.float32]:
    assert answer.status_code == 200, answer.text
    return np.array([one["embedding"] for one in answer.json()[key]], np.float32)


def test_images_equal_the_checkpoint(
    client: Client, model: DualEncoder, pictures: list[bytes]
) -> None:
    expected = checkpoint_images(model, pictures)
    with client() as ask:
        files = [("images", (f"{i}.png", data)) for i, data in enumerate(pictures)]
        multipart = rows(ask.post("/v1/embed/image", files=files))
        json = rows(ask.post("/v1/embed/image", json={"images": [b64(p) for p in pictures]}))
        raw = ask.post(
            "/v1/embed/image", content=pictures[2], headers={"content-type": "image/png"}
        )
    np.testing.assert_allclose(multipart, expected, rtol=0, atol=1e-5)
    np.testing.assert_allclose(json, expected, rtol=0, atol=1e-5)
    np.testing.assert_allclose(rows(raw), expected[2:3], rtol=0, atol=1e-5)


def test_texts_equal_the_checkpoint(client: Client, model: DualEncoder) -> None:
    with client() as ask:
        together = rows(ask.post("/v1/embed/text", json={"texts": TEXTS}))
        alone = [rows(ask.post("/v1/embed/text", json={"texts": [text]}))[0] for text in TEXTS]
    expected = checkpoint_texts(model, TEXTS)
    np.testing.assert_allclose(together, expected, rtol=0, atol=1e-5)
    np.testing.assert_allclose(np.stack(alone), expected, rtol=0, atol=1e-5)


def test_base64_is_the_same_bits(client: Client, pictures: list[bytes]) -> None:
    body: dict[str, Any] = {"images": [b64(pictures[0])]}
    with client() as ask:
        plain = rows(ask.post("/v1/embed/image", json=body))
        answer = ask.post("/v1/embed/image", json={**body, "encoding_format": "base64"})
        form = ask.post(
            "/v1/embed/image",
            files={"images": pictures[0]},
            data={"encoding_format": "base64"},
        )
    for coded in (answer, form):
        bits = base64.b64decode(coded.json()["results"][0]["embedding"])
        assert np.frombuffer(bits, "<f4").tolist() == plain[0].tolist()


def test_a_bad_image_fails_alone(client: Client, model: DualEncoder, pictures: list[bytes]) -> None:
    sent = [pictures[0], b"no picture", pictures[1], pictures[2][: len(pictures[2]) // 2]]
    with client() as ask:
        answer = ask.post("/v1/embed/image", files=[("images", data) for data in sent])
        results = answer.json()["results"]
        assert answer.status_code == 200
        assert [one["index"] for one in results] == [0, 1, 2, 3]
        assert ["error" in one for one in results] == [False, True, False, True]
        assert results[1]["error"]["message"].startswith("images[1]: not a picture")
        good = np.array([results[0]["embedding"], results[2]["embedding"]], np.float32)
        np.testing.assert_allclose(good, checkpoint_images(model, pictures[:2]), rtol=0, atol=1e-5)
        only_bad = ask.post("/v1/embed/image", json={"images": ["bm8=", "not base64!"]})
        assert only_bad.status_code == 422
        assert all("error" in one for one in only_bad.json()["results"])
        classified = ask.post("/v1/classify", files=[("images", data) for data in sent]).json()
        assert ["error" in one for one in classified["results"]] == [False, True, False, True]


def test_head_equals_the_checkpoint(
    client: Client, model: DualEncoder, pictures: list[bytes]
) -> None:
    images = torch.from_numpy(
        np.stack([model.spec.preprocess(Image.open(io.BytesIO(data))) for data in pictures])
    )
    with torch.no_grad():
        expected = model.classify(images).softmax(dim=-1).numpy()
    with client() as ask:
        answer = ask.post("/v1/classify", files=[("images", data) for data in pictures])
        top = ask.post("/v1/classify", json={"images": [b64(pictures[0])], "top_k": 1}).json()
    assert answer.status_code == 200
    for row, one in zip(expected, answer.json()["results"], strict=True):
        given = [entry["probability"] for entry in one["classes"]]
        assert given == sorted(given, reverse=True)
        by_label = {entry["label"]: entry["probability"] for entry in one["classes"]}
        np.testing.assert_allclose(
            [by_label[name] for name in model.spec.classes], row, rtol=0, atol=1e-4
        )
    best = model.spec.classes[int(expected[0].argmax())]
    assert [entry["label"] for entry in top["results"][0]["classes"]] == [best]


def test_zero_shot_equals_the_checkpoint(
    client: Client, model: DualEncoder, pictures: list[bytes]
) -> None:
    labels, templates = ["tree", "a {} of braces", "sea"], ["a photo of a {}", "{}, drawn"]
    heads = class_head(model, labels, templates).numpy()
    logits = model.logit_scale.exp().item() * checkpoint_images(model, pictures) @ heads.T
    expected = torch.from_numpy(logits).softmax(dim=-1).numpy()
    with client() as ask:
        answer = ask.post(
            "/v1/classify",
            files=[("images", data) for data in pictures],
            data={"labels": labels, "templates": templates},
        )
        again = ask.post(
            "/v1/classify",
            json={"images": [b64(p) for p in pictures], "labels": labels, "templates": templates},
        )
        query = ask.post(
            "/v1/classify",
            params={"labels": labels, "templates": templates},
            content=pictures[0],
            headers={"content-type": "image/png"},
        )
    assert answer.json() == again.json()
    assert query.json()["results"][0] == answer.json()["results"][0]
    for row, one in zip(expected, answer.json()["results"], strict=True):
        by_label = {entry["label"]: entry["probability"] for entry in one["classes"]}
        np.testing.assert_allclose([by_label[name] for name in labels], row, rtol=0, atol=1e-4)


def test_openai_form(
    client: Client, model: DualEncoder, info: ModelInfo, pictures: list[bytes]
) -> None:
    uri = f"data:image/png;base64,{b64(pictures[0])}"
    inputs = ["a cat", uri, {"text": "https://example.org/a"}, {"image": b64(pictures[1])}]
    with client() as ask:
        answer = ask.post("/v1/embeddings", json={"input": inputs, "model": info.name})
        one = ask.post("/v1/embeddings", json={"input": "a cat", "encoding_format": "base64"})
        broken = ask.post("/v1/embeddings", json={"input": ["a cat", uri[: 22 + 400]]})
        other = ask.post("/v1/embeddings", json={"input": "a cat", "model": "other"})
    body = answer.json()
    assert (body["object"], body["model"], body["digest"]) == ("list", info.name, info.digest)
    texts = checkpoint_texts(model, ["a cat", "https://example.org/a"])
    images = checkpoint_images(model, pictures[:2])
    expected = np.stack([texts[0], images[0], texts[1], images[1]])
    np.testing.assert_allclose(rows(answer, "data"), expected, rtol=0, atol=1e-5)
    bits = np.frombuffer(base64.b64decode(one.json()["data"][0]["embedding"]), "<f4")
    np.testing.assert_allclose(bits, texts[0], rtol=0, atol=1e-5)
    kinds = [entry["object"] for entry in broken.json()["data"]]
    assert (broken.status_code, kinds) == (200, ["embedding", "error"])
    assert other.status_code == 404
    assert info.name in other.json()["error"]["message"]


@pytest.mark.parametrize("url", ["http://10.0.0.1/a.png", "https://example.org/a.jpg", "file:///x"])
def test_urls_are_refused(client: Client, url: str, pictures: list[bytes]) -> None:
    with client() as ask:
        answers = [
            ask.post("/v1/embeddings", json={"input": ["a cat", url]}),
            ask.post("/v1/embeddings", json={"input": [{"image": url}]}),
            ask.post("/v1/embed/image", json={"images": [b64(pictures[0]), url]}),
            ask.post("/v1/classify", json={"images": [url]}),
        ]
    for answer in answers:
        assert answer.status_code == 422
        error = answer.json()["error"]
        assert error["type"] == "url_refused"
        assert url in error["message"]


@pytest.mark.parametrize(
    ("path", "body", "part"),
    [
        ("/v1/embed/text", {"text": ["a"]}, "text: unknown key; did you mean 'texts'?"),
        ("/v1/embed/text", {"texts": "a"}, "texts: Input should be a valid list; got 'a'"),
        ("/v1/embed/text", {"texts": []}, "texts: List should have at least 1 item"),
        ("/v1/embed/text", {"texts": ["a"], "encoding": "x"}, "did you mean 'encoding_format'?"),
        ("/v1/embed/image", {"images": [1]}, "images.0: Input should be a valid string; got 1"),
        ("/v1/classify", {"images": [""], "labels": ["a", "a"]}, "the same label twice"),
        ("/v1/classify", {"images": [""], "templates": ["a"]}, "has no {} for the label"),
        ("/v1/embeddings", {"input": [3]}, "input"),
        ("/v1/embeddings", {"input": "a", "dimensions": 7}, "dimensions: 7; allowed: 24"),
    ],
)
def test_wrong_bodies(client: Client, path: str, body: dict[str, Any], part: str) -> None:
    with client() as ask:
        answer = ask.post(path, json=body)
    assert answer.status_code == 422
    assert part in answer.json()["error"]["message"]


def test_wrong_forms(client: Client, pictures: list[bytes]) -> None:
    with client() as ask:
        data = {"top_k": "many"}
        answers = {
            415: ask.post("/v1/embed/image", content=pictures[0]),
            422: ask.post("/v1/classify", files={"images": pictures[0]}, data=data),
            404: ask.post("/v1/nothing", json={}),
            405: ask.get("/v1/embed/text"),
        }
        broken = ask.post(
            "/v1/embed/text", content=b"{", headers={"content-type": "application/json"}
        )
    assert {status: answer.status_code for status, answer in answers.items()} == {
        status: status for status in answers
    }
    assert "image/*" in answers[415].json()["error"]["message"]
    assert "top_k" in answers[422].json()["error"]["message"]
    assert broken.status_code == 422


def test_a_classifier_of_images_reads_no_texts(client: Client, pictures: list[bytes]) -> None:
    with client() as ask:
        told = [
            ask.post("/v1/classify", files={"images": pictures[0]}, data={"texts": ["a cat"]}),
            ask.post("/v1/classify", json={"texts": ["a cat"], "labels": ["x", "y"]}),
        ]
        reads = ask.get("/v1/model").json()["reads"]
    assert [answer.status_code for answer in told] == [422, 422]
    assert told[0].json()["error"]["message"] == (
        "texts: tiny classifies images alone; leave it out"
    )
    assert told[1].json()["error"]["message"] == "images: missing; tiny classifies images"
    assert reads == "image"


def test_caps(client: Client, pictures: list[bytes]) -> None:
    large = io.BytesIO()
    Image.new("RGB", (300, 200)).save(large, "PNG")

    def chunks() -> Any:
        yield from [b"x" * 1000] * 100

    caps = {"max_body_bytes": 60_000, "max_pixels": 50_000, "max_batch": 3, "max_prompts": 4}
    caps["max_inputs"] = 3
    with client(**caps) as ask:
        header = {"content-type": "image/png"}
        body = ask.post("/v1/embed/image", content=b"x" * 60_001, headers=header)
        undeclared = ask.post("/v1/embed/image", content=chunks(), headers=header)
        form = ask.post("/v1/embed/image", files={"images": b"x" * 60_001})
        pixels = ask.post("/v1/embed/image", content=large.getvalue(), headers=header)
        four = [
            ask.post("/v1/embed/image", json={"images": [b64(pictures[0])] * 4}),
            ask.post("/v1/embed/image", files=[("images", pictures[0])] * 4),
            ask.post("/v1/embed/text", json={"texts": ["a"] * 4}),
            ask.post("/v1/embeddings", json={"input": ["a"] * 4}),
        ]
        prompts = ask.post(
            "/v1/classify",
            json={"images": ["eA=="], "labels": list("abc"), "templates": ["{}", "x{}"]},
        )
        after = ask.post("/v1/embed/image", content=pictures[0], headers=header)
    for answer in (body, undeclared, form):
        assert (answer.status_code, answer.json()["error"]["type"]) == (413, "body_too_large")
    assert pixels.status_code == 422
    message = pixels.json()["results"][0]["error"]["message"]
    assert "300x200 pixels; allowed: at most 50000" in message
    for answer in (*four, prompts):
        assert (answer.status_code, answer.json()["error"]["type"]) == (413, "too_many_items")
    assert after.status_code == 200


def test_every_answer_names_the_model(
    client: Client, info: ModelInfo, pictures: list[bytes]
) -> None:
    with client() as ask:
        answers = [
            ask.get("/v1/model"),
            ask.post("/v1/embed/text", json={"texts": ["a"]}),
            ask.post("/v1/embed/image", files={"images": pictures[0]}),
            ask.post("/v1/classify", files={"images": pictures[0]}),
            ask.post("/v1/embeddings", json={"input": "a"}),
        ]
        refused = ask.post("/v1/embed/text", json={})
    for answer in answers:
        assert answer.status_code == 200
        assert answer.json()["digest"] == answer.headers["ptft-model-digest"] == info.digest
        assert answer.json()["model"] == info.name
    assert refused.headers["ptft-model-digest"] == info.digest
    described = answers[0].json()
    assert described["dim"] == info.embed_dim
    assert described["classes"] == info.classes
    assert described["weights_digest"] == info.weights_digest


def test_deadline(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    encode, pause = OnnxModel.encode_texts, 0.0

    def slowly(model: OnnxModel, items: Any) -> Any:
        time.sleep(pause)
        return encode(model, items)

    monkeypatch.setattr(OnnxModel, "encode_texts", slowly)
    with client(timeout_s=1.0) as ask:
        pause = 2.0
        late = ask.post("/v1/embed/text", json={"texts": ["a"]})
        assert (late.status_code, late.json()["error"]["type"]) == (504, "deadline")
        pause = 0.0
        time.sleep(2.0)
        assert ask.post("/v1/embed/text", json={"texts": ["a"]}).status_code == 200


def test_metrics(client: Client, pictures: list[bytes]) -> None:
    with client(max_batch=4) as ask:
        ask.post("/v1/embed/image", files=[("images", pictures[0]), ("images", b"x")])
        ask.post("/v1/embed/text", json={"texts": list("abc")})
        ask.post("/v1/embed/text", json={"texts": list("abcde")})
        lines = ask.get("/metrics").text.splitlines()
    for line in (
        'ptft_requests_total{route="embed_image",status="200"} 1.0',
        'ptft_requests_total{route="embed_image",status="504"} 0.0',
        'ptft_items_total{kind="image",outcome="ok"} 1.0',
        'ptft_items_total{kind="image",outcome="failed"} 1.0',
        'ptft_items_total{kind="text",outcome="ok"} 3.0',
        'ptft_rejected_total{key="",reason="too_many_items"} 1.0',
        'ptft_batch_items_sum{kind="text"} 3.0',
        'ptft_request_seconds_count{route="embed_text"} 2.0',
        "ptft_queue_items 0.0",
    ):
        assert line in lines


def test_probabilities_sum_to_one(client: Client, pictures: list[bytes], folder: Path) -> None:
    with client() as ask:
        answer = ask.post("/v1/classify", files={"images": pictures[0]}, data={"top_k": "99"})
    classes = answer.json()["results"][0]["classes"]
    assert math.isclose(sum(entry["probability"] for entry in classes), 1, abs_tol=1e-5)
