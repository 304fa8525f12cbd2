"""What nobody should send and somebody will: answered in the one shape, by what is wrong."""

import gzip
from typing import Any

import pytest
from starlette.testclient import TestClient

JSON = {"content-type": "application/json"}


def refused(answer: Any, status: int) -> str:
    assert answer.status_code == status, answer.text
    found = answer.json()["error"]
    assert set(found) == {"type", "code", "message", "param", "request_id"}
    assert found["request_id"] == answer.headers["x-request-id"]
    return str(found["message"])


@pytest.mark.parametrize(
    "path", ["/v1/models/", "/v1/models/%2e%2e%2f", "/v1/embeddings/", "/v1//models"]
)
def test_nobody_is_sent_elsewhere(plain_client: TestClient, path: str) -> None:
    """Where to would be made of what the client says our name is."""
    answer = plain_client.get(path, headers={"host": "elsewhere"}, follow_redirects=False)
    assert "no such path" in refused(answer, 404)
    assert "location" not in answer.headers


@pytest.mark.parametrize("body", [b'["a"]', b"null", b"4", b'"a"'])
def test_a_body_that_is_no_object(plain_client: TestClient, body: bytes) -> None:
    for path in ("/v1/embeddings", "/v1/embed/text", "/v1/rerank"):
        answer = plain_client.post(path, content=body, headers=JSON)
        assert refused(answer, 422).endswith("allowed: a JSON object")


@pytest.mark.parametrize(
    ("name", "value"),
    [("content-encoding", "gzip"), ("content-encoding", "br"), ("transfer-encoding", "gzip")],
)
def test_a_packed_body_is_refused_as_one(plain_client: TestClient, name: str, value: str) -> None:
    packed = gzip.compress(b'{"texts": ["a"]}')
    for path, media in (
        ("/v1/embed/text", JSON),
        ("/v1/embed/image", {"content-type": "image/png"}),
    ):
        answer = plain_client.post(path, content=packed, headers={**media, name: value})
        assert refused(answer, 415).startswith(f"{name} {value}: allowed: ")
    plain = {**JSON, "content-encoding": "identity"}
    assert plain_client.post(
        "/v1/embed/text", content=b'{"texts": ["a"]}', headers=plain
    ).is_success


@pytest.mark.parametrize(
    ("body", "where"),
    [
        (b'{"input": "a", "dimensions": NaN}', "body"),
        (b'{"input": "a", "dimensions": 1e999}', "body"),
        (b'{"input": "\\ud800"}', "body"),
        (b'{"input": "\xed\xa0\x80"}', "body"),
        (b'{"input": "a\0b"}', "body"),
        (b'{"input": ' + b"[" * 50_000 + b"]" * 50_000 + b"}", "body"),
        (b'{"input": ["a", 5]}', "input[1]"),
        (b'{"input": [true]}', "input[0]"),
        (b'{"input": [["a"]]}', "input[0]"),
        (b'{"input": []}', "input"),
    ],
)
def test_json_that_is_none_and_inputs_that_are_none(
    plain_client: TestClient, body: bytes, where: str
) -> None:
    answer = plain_client.post("/v1/embeddings", content=body, headers=JSON)
    refused(answer, 422)
    assert answer.json()["error"]["param"] == where


def test_texts_of_nothing_are_texts(plain_client: TestClient) -> None:
    body = {"texts": ["", "   ", "a\0b", "\N{GRINNING FACE}", "\u202e"]}
    found = plain_client.post("/v1/embed/text", json=body).json()["results"]
    assert [one["index"] for one in found if "embedding" in one] == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    ("body", "key"),
    [
        (b'{"texts": ["a"], "texts": ["b"]}', "texts"),
        (b'{"texts": ["a"], "texts": ["\\u003a"]}', "texts"),  # as many colons as it should have
        (b'{"texts": ["a:b"], "te\\u0078ts": ["a"]}', "texts"),
        (b'{"texts": ["a"], "encoding_format": "float", "encoding_format": "float"}',
         "encoding_format"),
        (b'{"input": [{"text": "a", "text": "b"}]}', "text"),
        (b'{"input": "a", "input": "b"}', "input"),
    ],
)  # fmt: skip
def test_a_key_twice(plain_client: TestClient, body: bytes, key: str) -> None:
    """Parsers take the last in silence."""
    path = "/v1/embeddings" if b"input" in body else "/v1/embed/text"
    answer = plain_client.post(path, content=body, headers=JSON)
    assert refused(answer, 422) == f"{key}: given twice; allowed: once"
    assert answer.json()["error"]["param"] == key


def test_colons_elsewhere_are_no_keys(plain_client: TestClient) -> None:
    body = b'{"texts": ["a: b", "\\u003a", "say \\"x\\": y", "::", "\\\\u003a", "\xef\xbc\x9a"]}'
    answer = plain_client.post("/v1/embed/text", content=body, headers=JSON)
    assert answer.is_success and len(answer.json()["results"]) == 6
