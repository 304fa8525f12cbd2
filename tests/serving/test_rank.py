"""``/v1/similarity`` and ``/v1/rerank``."""

import base64
from typing import Any

import numpy as np
import pytest

from ptft.artifact import ModelInfo
from ptft.model import DualEncoder
from tests.serving.conftest import Client, checkpoint_images, checkpoint_texts

TEXTS = ["a photo of a cat", "a dog", "red circle"]


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def test_scores_are_the_models_own(
    client: Client, model: DualEncoder, info: ModelInfo, pictures: list[bytes]
) -> None:
    cosines = checkpoint_images(model, pictures[:2]) @ checkpoint_texts(model, TEXTS).T
    logits = model.logit_scale.exp().item() * cosines + info.logit_bias
    with client() as ask:
        json = ask.post(
            "/v1/similarity",
            json={"images": [b64(pictures[0]), "bm8=", b64(pictures[1])], "texts": TEXTS},
        ).json()
        form = ask.post(
            "/v1/similarity",
            files=[("images", pictures[0]), ("images", b"no"), ("images", pictures[1])],
            data={"texts": TEXTS},
        ).json()
    assert json["results"][0] == form["results"][0]
    good = [json["results"][0], json["results"][2]]
    np.testing.assert_allclose([one["cosines"] for one in good], cosines, rtol=0, atol=1e-5)
    np.testing.assert_allclose([one["scores"] for one in good], logits, rtol=0, atol=1e-3)
    assert "not a picture" in json["results"][1]["error"]["message"]
    assert json["logit_scale"] == pytest.approx(info.logit_scale)


def test_documents_are_ranked_by_cosine(
    client: Client, model: DualEncoder, pictures: list[bytes]
) -> None:
    documents: list[Any] = [
        *TEXTS,
        {"image": b64(pictures[0])},
        {"image": "bm8="},
        {"text": TEXTS[0]},
    ]
    query = checkpoint_texts(model, ["a cat"])[0]
    rows = np.concatenate([checkpoint_texts(model, TEXTS), checkpoint_images(model, pictures[:1])])
    expected = {index: float(cosine) for index, cosine in enumerate(rows @ query)}
    expected[5] = expected[0]
    body = {"query": "a cat", "documents": documents, "model": "tiny"}
    with client() as ask:
        answer = ask.post("/v1/rerank", json=body).json()
        top = ask.post("/v2/rerank", json={**body, "top_n": 2, "return_documents": True}).json()
        picture = {"image": b64(pictures[0])}
        turned = ask.post("/rerank", json={"query": picture, "documents": TEXTS}).json()
    found = {one["index"]: one["relevance_score"] for one in answer["results"]}
    assert found == pytest.approx(expected, abs=1e-5)
    scores = [one["relevance_score"] for one in answer["results"]]
    assert scores == sorted(scores, reverse=True)
    assert [one["index"] for one in answer["failed"]] == [4]
    assert answer["usage"]["total_tokens"] > 0
    assert [one["index"] for one in top["results"]] == [
        one["index"] for one in answer["results"][:2]
    ]
    for one in top["results"]:
        sent = documents[one["index"]]
        text = sent if isinstance(sent, str) else sent.get("text")
        assert one.get("document") == ({"text": text} if text else None)
    cosines = (checkpoint_texts(model, TEXTS) @ checkpoint_images(model, pictures[:1]).T)[:, 0]
    assert turned["results"][0]["index"] == int(cosines.argmax())


def test_as_many_documents_as_inputs_may_be_and_what_is_billed(
    client: Client, pictures: list[bytes]
) -> None:
    picture = {"image": b64(pictures[0])}
    with client(max_inputs=4) as ask:
        full = ask.post(
            "/v1/rerank", json={"query": "a", "documents": ["b", picture, "c", picture]}
        )
        assert full.status_code == 200, full.text
        more = ask.post("/v1/rerank", json={"query": "a", "documents": ["b"] * 5})
        assert more.json()["error"]["message"] == "documents: 5 items; allowed: at most 4"
    assert full.json()["meta"]["billed_units"]["images"] == 2


def test_what_is_refused(client: Client) -> None:
    body: dict[str, Any] = {"query": "a", "documents": ["b"]}
    with client() as ask:
        for extra in ({"top_n": 0}, {"raw_scores": True}, {"max_tokens_per_doc": 9}):
            answer = ask.post("/v1/rerank", json={**body, **extra})
            assert answer.status_code == 422
            assert answer.json()["error"]["param"] == next(iter(extra))
        two = ask.post("/v1/rerank", json={**body, "query": ["a", "b"]})
        broken = ask.post("/v1/rerank", json={**body, "query": {"image": "bm8="}})
        none = ask.post("/v1/rerank", json={**body, "documents": []})
        only = ask.post("/v1/rerank", json={**body, "documents": [{"image": "bm8="}]})
    assert [one.status_code for one in (two, broken, none, only)] == [422] * 4
    assert two.json()["error"]["param"] == "query"
    assert only.json()["failed"][0]["index"] == 0
