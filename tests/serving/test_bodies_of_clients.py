"""Bodies that are nearly right: refused with a reason, and never the service's failure."""

import copy
import json
import random
from collections.abc import Iterator
from typing import Any

from starlette.testclient import TestClient

from serving.routes import ROUTES

CASES = 400
JSON = {"content-type": "application/json"}
VALUES: list[Any] = [
    *(None, True, False, 0, -1, 1.5, "", "a", "data:", "data:image/png;base64,"),
    *("https://x.example/y", "http://[::1", "http://a:99999/", "x" * 40_000, "\u0000"),
    *([], {}, [[]], [{}], [None], [[1]], ["a"] * 70, ["a"] * 3000),
    *({"text": "a"}, {"image": "x"}, {"image": {}}, {"type": "image_url"}),
    *({"type": "image_url", "image_url": {"url": 3}}, {"content": []}),
    {"content": [{"content": [{"content": "x"}]}]},
]


def places(value: Any, place: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield place
    if isinstance(value, dict | list):
        for key in value if isinstance(value, dict) else range(len(value)):
            yield from places(value[key], (*place, key))


def changed(body: Any, keys: list[str], chance: random.Random) -> Any:
    """Another value somewhere, a key more or a key less."""
    body = copy.deepcopy(body)
    *above, last = ("body", *chance.choice([*places(body)]))
    holder: Any = {"body": body}
    root = holder
    for key in above:
        holder = holder[key]
    if isinstance(holder[last], dict) and chance.random() < 0.3:
        holder[last][chance.choice(keys)] = chance.choice(VALUES)
    elif isinstance(holder, dict) and above and chance.random() < 0.2:
        del holder[last]
    else:
        holder[last] = chance.choice(VALUES)
    return root["body"]


def test_a_body_that_is_nearly_right_is_refused(plain_client: TestClient) -> None:
    schemas = plain_client.get("/openapi.json").json()["components"]["schemas"].values()
    keys = sorted({key for schema in schemas for key in schema.get("properties", {})})
    routes = [route for route in ROUTES if route.examples]
    chance, seen = random.Random(0), set()
    for _ in range(CASES):
        route = chance.choice(routes)
        body: Any = chance.choice(list(route.examples.values()))
        for _ in range(chance.randint(1, 3)):
            body = changed(body, keys, chance)
        answer = plain_client.post(route.path, content=json.dumps(body), headers=JSON)
        seen.add(answer.status_code)
        assert answer.status_code in (200, 404, 413, 422), (route.path, json.dumps(body)[:300])
        if "error" in answer.json():
            assert answer.json()["error"]["message"]
    assert seen >= {200, 413, 422}


def test_what_is_nested_without_end_is_refused(plain_client: TestClient) -> None:
    for depth in (3, 300, 900, 5000):
        text = '{"content": [' * depth + '"x"' + "]}" * depth
        for key in ("input", "query"):
            answer = plain_client.post(
                "/v1/embeddings" if key == "input" else "/v1/rerank",
                content=f'{{"{key}": [{text}], "documents": ["a"]}}',
                headers=JSON,
            )
            assert answer.status_code == 422, (depth, answer.text)
