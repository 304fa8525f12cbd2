"""``/v1/embeddings`` and ``/v1/models``: OpenAI's keys, and those of Infinity, vLLM and Jina."""

import base64
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import quote

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray
from starlette.testclient import TestClient

from ptft.artifact import ModelInfo
from ptft.model import DualEncoder
from tests.serving.conftest import Client, checkpoint_images, checkpoint_texts


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def rows(answer: httpx.Response) -> NDArray[np.float32]:
    assert answer.status_code == 200, answer.text
    return np.array([one["embedding"] for one in answer.json()["data"]], np.float32)


def error(answer: httpx.Response) -> dict[str, Any]:
    found: dict[str, Any] = answer.json()["error"]
    assert set(found) == {"type", "code", "message", "param", "request_id"}
    return found


def test_as_many_as_openai_takes_run_in_batches(client: Client, model: DualEncoder) -> None:
    texts = [f"a photo of {number}" for number in range(2048)]
    with client() as ask:
        answer = ask.post("/v1/embeddings", json={"input": texts})
        more = ask.post("/v1/embeddings", json={"input": [*texts, "one more"]})
        lines = ask.get("/metrics").text.splitlines()
    picked = [0, 63, 64, 1000, 2047]
    expected = checkpoint_texts(model, [texts[index] for index in picked])
    np.testing.assert_allclose(rows(answer)[picked], expected, rtol=0, atol=1e-5)
    assert [one["index"] for one in answer.json()["data"]] == list(range(2048))
    assert (more.status_code, error(more)["param"]) == (413, "input")
    assert "ptft_queue_items 0.0" in lines


def test_lists_that_are_more_work_than_is_let_in_at_once_are_answered_in_turns(
    client: Client, model: DualEncoder
) -> None:
    texts = [f"a photo of {number}" for number in range(300)]
    bodies = [{"input": texts}, {"input": texts[::-1]}, {"input": texts[:65]}]
    with client(max_work_s=0.02, max_queue=64) as ask, ThreadPoolExecutor(3) as threads:
        found = list(threads.map(lambda body: ask.post("/v1/embeddings", json=body), bodies))
        lines = ask.get("/metrics").text.splitlines()
    np.testing.assert_allclose(rows(found[0]), rows(found[1])[::-1], rtol=0, atol=1e-6)
    np.testing.assert_allclose(rows(found[2]), rows(found[0])[:65], rtol=0, atol=1e-6)
    assert "ptft_memory_bytes 0.0" in lines and "ptft_work_seconds 0.0" in lines


def test_a_list_has_a_deadline_of_its_own(client: Client) -> None:
    texts = [f"a photo of {number}" for number in range(2048)]
    with client(timeout_s=0.2, list_timeout_s=0.25, max_work_s=0.05) as ask:
        refused = ask.post("/v1/embeddings", json={"input": ["word " * 60 + one for one in texts]})
        assert (refused.status_code, error(refused)["type"]) in (
            (413, "too_costly"),
            (504, "deadline"),
        )
        assert "PTFT_LIST_TIMEOUT_S" in error(refused)["message"]
        wait_until_free(ask)
        again = (ask.post("/v1/embed/text", json={"texts": ["a cat"]}) for _ in range(50))
        assert any(one.status_code == 200 for one in again)  # on a busy machine not the first


def wait_until_free(ask: TestClient) -> None:
    for _ in range(500):
        lines = ask.get("/metrics").text.splitlines()
        if "ptft_memory_bytes 0.0" in lines and "ptft_queue_items 0.0" in lines:
            return
        time.sleep(0.02)
    raise AssertionError("something is still held")


def test_usage_counts_the_tokens_of_texts(client: Client, model: DualEncoder) -> None:
    texts = ["a cat", "", "a much longer text about a cat"]
    tokenizer = model.spec.tokenizer
    expected = int(tokenizer.lengths(tokenizer(texts)).sum())
    with client() as ask:
        usage = ask.post("/v1/embeddings", json={"input": texts}).json()["usage"]
    assert usage == {"prompt_tokens": expected, "total_tokens": expected}


def test_dimensions_are_cut_where_that_is_stated(client: Client, info: ModelInfo) -> None:
    body = {"input": "a cat"}
    with client() as ask:
        whole = rows(ask.post("/v1/embeddings", json=body))
        same = rows(ask.post("/v1/embeddings", json={**body, "dimensions": info.embed_dim}))
        unset = rows(ask.post("/v1/embeddings", json={**body, "dimensions": 0}))
        refused = ask.post("/v1/embeddings", json={**body, "dimensions": 8})
    with client(dimensions=(8,)) as ask:
        cut = rows(ask.post("/v1/embeddings", json={**body, "dimensions": 8}))
        other = ask.post("/v1/embeddings", json={**body, "dimensions": 9})
        cohere = ask.post("/v2/embed", json={"texts": ["a cat"], "output_dimension": 8})
    assert whole.tolist() == same.tolist() == unset.tolist()
    assert (refused.status_code, error(refused)["param"]) == (422, "dimensions")
    assert "dimensions: 9; allowed: 8, 24" in error(other)["message"]
    expected = whole[:, :8] / np.linalg.norm(whole[:, :8])
    np.testing.assert_allclose(cut, expected, rtol=0, atol=1e-6)
    np.testing.assert_allclose(cohere.json()["embeddings"]["float"], expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("ids", [[1, 2, 3], [[1, 2], [3]], [list(range(200_000))], [1] * 5000])
def test_token_ids_are_refused_with_the_switch(client: Client, ids: list[Any]) -> None:
    with client() as ask:
        answer = ask.post("/v1/embeddings", json={"input": ids, "model": "tiny"})
    assert answer.status_code == 422
    assert (error(answer)["code"], error(answer)["param"]) == ("token_ids", "input")
    for words in ("check_embedding_ctx_length=False", "OpenAILikeEmbedding"):
        assert words in error(answer)["message"]


def test_models(client: Client, info: ModelInfo) -> None:
    with client(aliases=("ViT-B-32__openai", "text-embedding-3-small")) as ask:
        listed = ask.get("/v1/models").json()
        one = ask.get("/v1/models/ViT-B-32__openai")
        none = ask.get("/v1/models/text-embedding-3-smal")
        asked = ask.post("/v1/embeddings", json={"input": "a", "model": "text-embedding-3-small"})
        other = ask.post("/v1/embeddings", json={"input": "a", "model": "gpt"})
    names = [info.name, "ViT-B-32__openai", "text-embedding-3-small"]
    assert [one["id"] for one in listed["data"]] == names
    assert one.json() == listed["data"][1]
    assert one.json()["digest"] == info.digest
    assert (none.status_code, error(none)["param"]) == (404, "model")
    assert "did you mean 'text-embedding-3-small'?" in error(none)["message"]
    assert asked.status_code == 200
    assert (other.status_code, error(other)["code"]) == (404, "model_not_found")


def messages(part: dict[str, Any]) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": [part]}]}


def test_pictures_as_others_send_them(
    client: Client, model: DualEncoder, pictures: list[bytes]
) -> None:
    uri = f"data:image/png;base64,{b64(pictures[0])}"
    vllm = messages({"type": "image_url", "image_url": {"url": uri}})
    bodies: list[dict[str, Any]] = [
        {"input": [uri], "modality": "image"},
        {"input": uri, "modality": "image", "dimensions": 0, "model": "default/not-specified"},
        {"input": [b64(pictures[0])], "modality": "image"},
        {"input": [{"image": b64(pictures[0])}], "normalized": True, "task": "retrieval.query"},
        {"input": [{"type": "image_url", "image_url": {"url": uri}}]},
        {**vllm, "add_special_tokens": False, "continue_final_message": False},
    ]
    expected = checkpoint_images(model, pictures[:1])
    with client() as ask:
        for body in bodies:
            found = rows(ask.post("/v1/embeddings", json=body))
            np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)
        text = rows(ask.post("/v1/embeddings", json=messages({"type": "text", "text": "a cat"})))
        bare = rows(ask.post("/embeddings", json={"input": [uri], "modality": "text"}))
        coded = ask.post(
            "/v1/embeddings", json={"input": [{"text": "a"}], "embedding_type": "base64"}
        )
    np.testing.assert_allclose(text, checkpoint_texts(model, ["a cat"]), rtol=0, atol=1e-5)
    assert abs(float((bare @ expected.T).item())) < 0.999  # the URI as a text
    assert isinstance(coded.json()["data"][0]["embedding"], str)


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"input": ["a"], "modality": "audio"}, "modality"),
        ({"input": ["a"], "normalized": False}, "normalized"),
        ({"input": ["a"], "late_chunking": True}, "late_chunking"),
        ({"input": ["a"], "embedding_type": "binary"}, "embedding_type"),
        ({"input": ["a"], "truncate_prompt_tokens": 5}, "truncate_prompt_tokens"),
        ({"input": ["a"], "add_special_tokens": False}, "add_special_tokens"),
        ({"input": ["a"], "chat_template": "{{ x }}"}, "chat_template"),
        ({"input": ["a"], "messages": []}, "messages"),
        ({}, "input"),
        ({"input": ["a", 3.5]}, "input[1]"),
        ({"input": ["a", None]}, "input[1]"),
        ({"input": [{"text": "a", "image": "x"}]}, "input[0]"),
        ({"input": ["a", "x" * 32_769]}, "input[1]"),
        ({"messages": [{"role": "system", "content": "a"}]}, "messages[0].role"),
        ({"messages": [{"role": "user", "content": []}]}, "messages[0].content"),
        ({"input": ["a"], "dimension": 8}, "dimension"),
        ({"input": "https://example.org/a.png", "modality": "image"}, "input[0]"),
    ],
)
def test_what_would_change_the_answer_is_refused_by_name(
    client: Client, body: dict[str, Any], param: str
) -> None:
    with client() as ask:
        answer = ask.post("/v1/embeddings", json=body)
    assert answer.status_code == 422, answer.text
    assert error(answer)["param"] == param


def test_an_alias_with_a_slash_is_one_of_the_models(client: Client) -> None:
    with client(aliases=("org/shoes",)) as ask:
        for one in ask.get("/v1/models").json()["data"]:
            for name in (one["id"], quote(one["id"], safe="")):
                assert ask.get(f"/v1/models/{name}").json()["id"] == one["id"]
        none = ask.get("/v1/models/org/shoe")
        assert (none.status_code, error(none)["code"]) == (404, "model_not_found")
        assert "/v1/models/{name}" in ask.get("/openapi.json").json()["paths"]


def test_cohere(client: Client, model: DualEncoder, pictures: list[bytes]) -> None:
    uri = f"data:image/png;base64,{b64(pictures[0])}"
    both = ["float", "base64"]
    part = {"content": [{"type": "image_url", "image_url": {"url": uri}}]}
    with client() as ask:
        texts = ask.post(
            "/v2/embed",
            json={"texts": ["a cat", "b"], "input_type": "search_query", "embedding_types": both},
        ).json()
        images = ask.post("/v2/embed", json={"images": [uri], "input_type": "image"}).json()
        inputs = ask.post("/v2/embed", json={"inputs": [part], "truncate": "END"}).json()
        word = {"content": [{"type": "text", "text": "b"}]}
        worded = ask.post("/v2/embed", json={"inputs": [word]}).json()
        refused = {
            key: ask.post("/v2/embed", json={"texts": ["a"], key: value})
            for key, value in (
                ("embedding_types", ["int8"]),
                ("truncate", "NONE"),
                ("max_tokens", 5),
                ("images", [uri]),
            )
        }
        broken = ask.post("/v2/embed", json={"images": [uri, uri[:90]]})
        most = ask.post("/v2/embed", json={"texts": [f"a {n}" for n in range(96)]})
    expected = checkpoint_texts(model, ["a cat", "b"])
    np.testing.assert_allclose(texts["embeddings"]["float"], expected, rtol=0, atol=1e-5)
    bits = np.frombuffer(base64.b64decode(texts["embeddings"]["base64"][1]), "<f4")
    np.testing.assert_allclose(bits, expected[1], rtol=0, atol=1e-5)
    assert texts["texts"] == ["a cat", "b"]
    assert len(most.json()["embeddings"]["float"]) == 96
    assert texts["meta"]["billed_units"]["input_tokens"] > 4
    assert [one["meta"]["billed_units"]["images"] for one in (texts, images, inputs)] == [0, 1, 1]
    assert worded["meta"]["billed_units"] == {"input_tokens": 3, "images": 0}
    picture = checkpoint_images(model, pictures[:1])
    for found in (images, inputs):
        np.testing.assert_allclose(found["embeddings"]["float"], picture, rtol=0, atol=1e-5)
    for key, answer in refused.items():
        assert answer.status_code == 422
        about = str(error(answer)["param"])
        assert about.partition(".")[0] == ("texts" if key == "images" else key)
    assert broken.status_code == 422
    assert error(broken)["message"].endswith("(1 of 2 failed)")
    assert error(broken)["message"].startswith("images[1]: ")


OTHER = f"sha256:{'0' * 64}"


def test_one_digest_or_none(client: Client, info: ModelInfo, pictures: list[bytes]) -> None:
    body, mine = {"input": "a cat"}, {"ptft-model-digest": info.digest}
    other = {"ptft-model-digest": OTHER}
    with client() as ask:
        good = [
            ask.post("/v1/embeddings", json=body, headers=mine),
            ask.post("/v1/embeddings", json={**body, "model": info.digest}),
            ask.post("/v1/embed/image", files={"images": pictures[0]}, headers=mine),
            ask.get("/v1/model", headers=mine),
        ]
        refused = [
            ask.post("/v1/embeddings", json=body, headers=other),
            ask.post("/v1/embeddings", json={**body, "model": OTHER}),
            ask.post("/v1/embed/image", files={"images": pictures[0]}, headers=other),
            ask.post("/v2/embed", json={"texts": ["a"], "model": OTHER}, headers=mine),
            ask.get("/v1/model", headers=other),
        ]
        wrong = ask.post("/v1/embeddings", json=body, headers={"ptft-model-digest": "v1.2"})
        probe = ask.get("/readyz", headers=other)  # asks nothing of a model
    assert {answer.status_code for answer in good} == {200}
    for answer in refused:
        assert (answer.status_code, error(answer)["code"]) == (421, "other_model")
        assert f"{OTHER} is not served here; served: {info.digest}" in error(answer)["message"]
        assert answer.headers["ptft-model-digest"] == info.digest
        assert answer.headers["connection"] == "close"
    assert [error(answer)["param"] for answer in refused[:2]] == ["ptft-model-digest", "model"]
    assert wrong.status_code == 400
    assert "'v1.2'; allowed: sha256: and 64 hex digits" in error(wrong)["message"]
    assert probe.status_code == 200
