"""``/openapi.json`` resolves, and what it shows works and is answered as it says."""

from collections.abc import Iterator
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from referencing import Registry, Resource
from starlette.testclient import TestClient

from serving.routes import ROUTES


@pytest.fixture(scope="module")
def document(plain_client: TestClient) -> dict[str, Any]:
    found: dict[str, Any] = plain_client.get("/openapi.json").json()
    return found


def references(value: object) -> Iterator[str]:
    if isinstance(value, dict):
        if isinstance(value.get("$ref"), str):
            yield value["$ref"]
        for inner in value.values():
            yield from references(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from references(inner)


def validator(document: dict[str, Any], place: str) -> Draft202012Validator:
    registry = Registry().with_resource("urn:ours", Resource.opaque(document))
    return Draft202012Validator({"$ref": f"urn:ours#{place}"}, registry=registry)


def test_every_reference_leads_somewhere(document: dict[str, Any]) -> None:
    schemas = document["components"]["schemas"]
    found = set(references(document))
    assert found == {f"#/components/schemas/{name}" for name in schemas}
    for schema in schemas.values():
        Draft202012Validator.check_schema(schema)


def test_it_has_every_route_and_each_says_what_it_takes(document: dict[str, Any]) -> None:
    assert (
        set(document["paths"])
        == {route.path for route in ROUTES}
        >= {
            *("/v1/embed/image", "/v1/embed/text", "/v1/classify", "/v1/similarity", "/v1/rerank"),
            "/v1/detect",
            *("/v1/embeddings", "/v1/models", "/v1/models/{name}", "/v1/model", "/v2/embed"),
            "/predict",
        }
    )
    names = [one["operationId"] for path in document["paths"].values() for one in path.values()]
    assert len(names) == len(set(names)) == len(ROUTES)
    body = document["paths"]["/v1/classify"]["post"]["requestBody"]["content"]
    assert {"multipart/form-data", "application/json", "application/octet-stream"} == set(body)
    part = body["multipart/form-data"]["schema"]["properties"]["images"]
    assert part["items"] == {"type": "string", "format": "binary"}


EXAMPLES = [(route, name) for route in ROUTES for name in route.examples]


@pytest.mark.parametrize(("route", "name"), EXAMPLES, ids=lambda one: getattr(one, "name", one))
def test_an_example_is_as_the_schema_says_and_so_is_its_answer(
    document: dict[str, Any], request: pytest.FixtureRequest, route: Any, name: str
) -> None:
    place = f"/paths/{route.path.replace('/', '~1')}/post"
    media = "application~1json"
    body = document["paths"][route.path]["post"]["requestBody"]["content"]["application/json"]
    sent = body["examples"][name]["value"]
    validator(document, f"{place}/requestBody/content/{media}/schema").validate(sent)
    name = "detector_client" if route.name == "detect" else "plain_client"
    asking: TestClient = request.getfixturevalue(name)
    answer = asking.post(route.path, json=sent)
    assert answer.status_code == 200, answer.text
    validator(document, f"{place}/responses/200/content/{media}/schema").validate(answer.json())


def test_a_refusal_is_as_the_schema_says(
    document: dict[str, Any], plain_client: TestClient
) -> None:
    refused = plain_client.post("/v1/embeddings", json={"input": [1]}).json()
    schema = validator(document, "/components/schemas/ErrorAnswer")
    schema.validate(refused)
    assert not schema.is_valid({"error": "no"}) and not schema.is_valid({})


@pytest.mark.parametrize(
    "path", ["/v1/embed/image", "/v1/similarity", "/v1/rerank", "/v1/embeddings"]
)
def test_an_answer_of_failures_alone_is_as_the_schema_says(
    document: dict[str, Any], plain_client: TestClient, path: str
) -> None:
    none = {"image": "bm8="}
    sent: dict[str, Any] = {
        "/v1/embed/image": {"images": ["bm8="]},
        "/v1/similarity": {"images": ["bm8="], "texts": ["a"]},
        "/v1/rerank": {"query": "a", "documents": [none]},
        "/v1/embeddings": {"input": [none]},
    }
    answer = plain_client.post(path, json=sent[path])
    assert answer.status_code == 422 and "error" not in answer.json()
    place = f"/paths/{path.replace('/', '~1')}/post/responses/422/content/application~1json/schema"
    schema = validator(document, place)
    schema.validate(answer.json())
    schema.validate(plain_client.post(path, json={}).json())
    assert not schema.is_valid({"results": 3})
