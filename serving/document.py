"""``/openapi.json`` and ``/docs``: what each route is asked and answers, of the schemas alone.

The document is made of the models that requests are checked by, so that the two cannot differ.
"""

import json
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import JsonSchemaMode, models_json_schema
from starlette.responses import Response

from serving.asked import DIGEST_HEADER, Asked
from serving.schema import ErrorAnswer

__all__ = ["Route", "describe"]

_REFUSALS = {
    400: "an input is missing",
    401: "no API key, or one that nobody has here, where the service asks for one",
    403: "an API key that is over",
    404: "no such model",
    408: "the body did not come",
    413: "the body, an image or the number of items is beyond its cap",
    415: "a content type that the route does not read",
    421: "another model is served than the digest that the request names",
    422: "a key or value is wrong, or every item failed",
    429: "too much at once, in all or with this key; Retry-After says when to ask again",
    431: "a request's line and header are beyond their cap",
    500: "a fault of the service's own, which its log tells",
    503: "the model is not loaded yet",
    504: "no answer before the deadline",
}
_ALL_FAILED = 422
_FILE = {"type": "string", "format": "binary"}
_DIGEST = {
    "name": DIGEST_HEADER,
    "in": "header",
    "required": False,
    "description": "sha256:...; answered by this model, or refused",
    "schema": {"type": "string", "pattern": "^sha256:[0-9a-f]{64}$"},
}
_KEY = {"type": "http", "scheme": "bearer", "description": "where the service asks for API keys"}


@dataclass(frozen=True)
class Route:
    """A path and what answers there.

    Attributes:
        path: with parameters in braces.
        name: for metrics, and for the methods of generated clients.
        about: one line.
        handler: what answers.
        answer: its schema; None: plain text.
        body: of the JSON that is posted; None: nothing is posted.
        files: the part of a form that takes pictures, where the route reads forms.
        more_files: other parts that do.
        form: the schema of the form's other fields; that of ``body`` without ``files`` by default.
        partial: an item that fails fails alone; where all do, the answer has the status 422.
        raw: whether a body may be one picture: as ``image/*`` too, which generators do not know.
        examples: bodies by name.
        also: other paths of it.
    """

    path: str
    name: str
    about: str
    handler: Callable[[Asked], Awaitable[Response]]
    answer: type[BaseModel]
    body: type[BaseModel] | None = None
    files: str = ""
    more_files: tuple[str, ...] = ()
    form: type[BaseModel] | None = None
    partial: bool = False
    raw: bool = False
    examples: dict[str, dict[str, Any]] = field(default_factory=dict)
    also: tuple[str, ...] = ()

    @property
    def method(self) -> str:
        """``POST`` where there is something to post."""
        return "POST" if self.body or self.form else "GET"


def describe(routes: Sequence[Route], title: str, version: str, about: str) -> dict[str, Any]:
    """The OpenAPI document (3.1)."""
    pairs: list[tuple[type[BaseModel], JsonSchemaMode]] = [(ErrorAnswer, "serialization")]
    for route in routes:
        pairs += [(model, "validation") for model in (route.body, route.form) if model]
        pairs.append((route.answer, "serialization"))
    references, schemas = models_json_schema(
        list(dict.fromkeys(pairs)), ref_template="#/components/schemas/{model}"
    )
    paths: dict[str, Any] = {}
    for route in routes:
        operation = _operation(route, references)
        paths.setdefault(route.path, {})[route.method.lower()] = operation
    written = json.dumps([paths, schemas])
    used = {k: v for k, v in schemas["$defs"].items() if f'"#/components/schemas/{k}"' in written}
    return {
        "openapi": "3.1.0",
        "info": {"title": title, "version": version, "description": about},
        "paths": paths,
        "components": {"schemas": used, "securitySchemes": {"key": _KEY}},
        "security": [{}, {"key": []}],
    }


def _operation(route: Route, references: Any) -> dict[str, Any]:
    answer = references[route.answer, "serialization"]
    refused = references[ErrorAnswer, "serialization"]
    responses: dict[str, Any] = {"200": _response("the answer", answer)}
    for status, text in _REFUSALS.items():
        failed = route.partial and status == _ALL_FAILED
        responses[str(status)] = _response(
            text, {"anyOf": [answer, refused]} if failed else refused
        )
    operation: dict[str, Any] = {
        "operationId": route.name,
        "summary": route.about,
        "responses": responses,
        "parameters": [_DIGEST],
    }
    if "{" in route.path:
        name = route.path.partition("{")[2].partition("}")[0].partition(":")[0]
        where = {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
        operation["parameters"] = [where, _DIGEST]
    content: dict[str, Any] = {}
    if route.body:
        content["application/json"] = {
            "schema": references[route.body, "validation"],
            "examples": {name: {"value": value} for name, value in route.examples.items()},
        }
    if route.files:
        content["multipart/form-data"] = {"schema": _form(route)}
    if route.raw:
        content["application/octet-stream"] = {"schema": _FILE}
    if content:
        operation["requestBody"] = {"required": True, "content": content}
    return operation


def _response(about: str, schema: Any) -> dict[str, Any]:
    return {"description": about, "content": {"application/json": {"schema": schema}}}


def _form(route: Route) -> dict[str, Any]:
    """Of a form: pictures as files, lists as fields that stand several times."""
    model = route.form or route.body
    assert model is not None
    schema = model.model_json_schema(ref_template="#/components/schemas/{model}")
    pictures = (route.files, *route.more_files)
    fields = {key: value for key, value in schema["properties"].items() if key not in pictures}
    files = _FILE if route.form else {"type": "array", "items": _FILE}
    needed = [key for key in schema.get("required", []) if key != route.files]
    return {
        "type": "object",
        "properties": {**dict.fromkeys(pictures, files), **fields},
        **({"required": needed} if needed else {}),
    }
