"""What a request held ends with it, and not with the next collection of garbage."""

import gc
import json

import pytest

from serving.asked import Asked
from serving.refusal import Refusal
from tests.serving import attacks
from tests.serving.conftest import Client

JSON = {"content-type": "application/json"}
FORM = {"content-type": f"multipart/form-data; boundary={attacks.BOUNDARY}"}
LARGE = "a" * 200_000


@pytest.mark.parametrize(
    ("path", "body", "headers"),
    [
        ("/v1/embed/image", attacks.cut_form(200_000), FORM),
        ("/v1/embed/text", b'{"texts": ["' + LARGE.encode(), JSON),
        ("/v1/embed/text", json.dumps({"texts": [LARGE]}).encode(), JSON),
        ("/v1/embed/text", json.dumps({"texts": ["a"], "key": LARGE}).encode(), JSON),
        ("/v1/embed/text", json.dumps({"texts": ["a" * 9] * 20_000}).encode(), JSON),
        ("/v1/embeddings", json.dumps({"input": [LARGE]}).encode(), JSON),
        ("/v1/embed/image", LARGE.encode(), {"content-type": "text/plain"}),
    ],
    ids=["cut form", "cut json", "long text", "unknown key", "many", "long input", "no picture"],
)
def test_a_refused_body_is_let_go_of_at_once(
    client: Client, path: str, body: bytes, headers: dict[str, str]
) -> None:
    with client() as ask:
        gc.collect()
        gc.disable()
        try:
            assert 400 <= ask.post(path, content=body, headers=headers).status_code < 500
            ask.post("/v1/embed/text", json={"texts": ["a"]})  # the one before is through
            left = [one for one in gc.get_objects() if type(one) is Refusal]
        finally:
            gc.enable()
        # each holds the frames that it came through, and they the body
        assert not [one for one in left if one.__traceback__ is not None]


def test_an_answered_request_is_let_go_of_at_once(client: Client) -> None:
    """A collection of all that requests have left would hold up those that come meanwhile."""
    with client() as ask:
        gc.collect()
        gc.disable()
        try:
            for _ in range(3):
                assert ask.post("/v1/embed/text", json={"texts": ["a"]}).status_code == 200
            ask.get("/livez")  # the one before is through
            left = [one for one in gc.get_objects() if type(one) is Asked]
        finally:
            gc.enable()
        assert not left
