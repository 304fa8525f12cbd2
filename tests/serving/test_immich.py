"""``/predict`` and ``/ping`` as Immich's server asks its machine-learning container.

The requests are written after immich-app/immich, machine-learning.repository.ts of its server: a
form with ``entries``, and ``image``, a file named blob, or ``text``.
"""

import json
from typing import Any

import numpy as np
from starlette.testclient import TestClient

from ptft.model import DualEncoder
from tests.serving.conftest import Client, checkpoint_images, checkpoint_texts

NAME = "ViT-B-32__openai"
BOUNDARY = "----formdata-undici-012345678901"


def form(entries: object, *, image: bytes = b"", text: str | None = None) -> dict[str, Any]:
    """A body byte for byte as Node's fetch writes a FormData."""
    parts = [b'name="entries"\r\n\r\n' + json.dumps(entries).encode()]
    if image:
        blob = b'name="image"; filename="blob"\r\nContent-Type: application/octet-stream\r\n\r\n'
        parts.append(blob + image)
    if text is not None:
        parts.append(b'name="text"\r\n\r\n' + text.encode())
    mark = b"--" + BOUNDARY.encode()
    pieces = [mark + b"\r\nContent-Disposition: form-data; " + part + b"\r\n" for part in parts]
    content_type = f"multipart/form-data; boundary={BOUNDARY}"
    return {"content": b"".join(pieces) + mark + b"--", "headers": {"content-type": content_type}}


def visual(name: str = NAME) -> dict[str, Any]:
    return {"clip": {"visual": {"modelName": name}}}


def textual(name: str = NAME) -> dict[str, Any]:
    return {"clip": {"textual": {"modelName": name, "options": {"language": "de"}}}}


def test_a_photo_and_a_search(client: Client, model: DualEncoder, pictures: list[bytes]) -> None:
    with client(aliases=(NAME,)) as ask:
        ping = ask.get("/ping")
        photo = ask.post("/predict", **form(visual(), image=pictures[1])).json()
        search = ask.post("/predict", **form(textual(), text="a cat")).json()
    assert (ping.status_code, ping.text) == (200, "pong")
    assert set(photo) == {"clip", "imageHeight", "imageWidth"}
    assert (photo["imageHeight"], photo["imageWidth"]) == (47, 61)
    assert set(search) == {"clip"}
    assert isinstance(photo["clip"], str)
    expected = checkpoint_images(model, pictures[1:2])[0]
    np.testing.assert_allclose(json.loads(photo["clip"]), expected, rtol=0, atol=1e-5)
    expected = checkpoint_texts(model, ["a cat"])[0]
    np.testing.assert_allclose(json.loads(search["clip"]), expected, rtol=0, atol=1e-5)


REFUSED: list[tuple[object, dict[str, Any], int, str]] = [
    (visual("other"), {"image": b"x"}, 404, "entries.clip.visual.modelName: 'other'"),
    (visual(), {"image": b"no picture"}, 422, "image: not a picture"),
    (visual(), {"text": "a"}, 400, "image: missing"),
    (textual(), {"image": b"x"}, 400, "text: missing"),
    (textual(), {"text": "a" * 40_000}, 422, "text: 40000 characters"),
    ({"ocr": {}}, {"image": b"x"}, 422, "allowed: the task clip alone"),
    ({"facial-recognition": {"detection": {}}}, {"image": b"x"}, 422, "the task clip alone"),
    ({"clip": {"visual": {}}}, {"image": b"x"}, 422, "allowed: modelName"),
    ({"clip": {"visual": 3}}, {"image": b"x"}, 422, "allowed: modelName"),
    ({"clip": []}, {"image": b"x"}, 422, "visual or textual"),
    ([], {"image": b"x"}, 422, "the task clip alone"),
]


def test_what_is_refused(client: Client) -> None:
    with client(aliases=(NAME,)) as ask:
        for entries, given, status, part in REFUSED:
            answer = ask.post("/predict", **form(entries, **given))
            assert answer.status_code == status, answer.text
            assert part in answer.json()["error"]["message"]


def test_other_forms(plain_client: TestClient) -> None:
    assert plain_client.post("/predict", json={}).status_code == 415
    none = plain_client.post("/predict", data={"text": "a"}, files={"image": b"x"})
    assert (none.status_code, none.json()["error"]["param"]) == (422, "entries")
