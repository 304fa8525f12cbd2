"""``/docs``: what every route takes and answers, as one page without a script, from the OpenAPI
document. What frameworks serve there loads its program from a CDN; this page loads nothing.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jinja2 import Template

__all__ = ["POLICY", "reference_page"]

POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
"""Content-Security-Policy of the page: nothing is loaded, and nothing runs."""

_DEEPEST = 3  # objects within objects that are written out
Schema = Mapping[str, Any]


@dataclass(frozen=True)
class _Key:
    """A key of an object, as a row of a table."""

    name: str
    type: str
    required: bool
    default: str
    words: str


@dataclass(frozen=True)
class _Form:
    """A media type, its keys, and an example where the document has one."""

    media: str
    type: str
    keys: list[_Key]
    example: str


@dataclass(frozen=True)
class _Route:
    method: str
    path: str
    words: str
    parameters: list[_Key]
    bodies: list[_Form]
    answers: list[_Form]
    refusals: dict[str, str] = field(default_factory=dict)

    @property
    def anchor(self) -> str:
        """For links within the page."""
        return f"{self.method}{self.path}".lower().replace("/", "-")


def reference_page(document: Mapping[str, Any]) -> str:
    """An OpenAPI document (3.1) as HTML."""
    routes = [
        _route(method, path, operation, document)
        for path, operations in document["paths"].items()
        for method, operation in operations.items()
    ]
    shared: dict[str, str] = {}
    for route in routes:
        shared |= route.refusals
    return _template().render(info=document["info"], routes=routes, refusals=sorted(shared.items()))


@cache
def _template() -> "Template":
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined
    )
    return environment.get_template("reference.html")


def _route(method: str, path: str, operation: Schema, document: Mapping[str, Any]) -> _Route:
    known = document.get("components", {}).get("schemas", {})
    answers = operation.get("responses", {})
    good = [one for status, one in answers.items() if status.startswith("2")]
    return _Route(
        method=method.upper(),
        path=path,
        words=operation.get("description", operation.get("summary", "")),
        parameters=[
            _key(one["name"], one.get("schema", {}), one.get("required", False), known, one)
            for one in operation.get("parameters", [])
        ],
        bodies=list(_forms(operation.get("requestBody", {}), known)),
        answers=[form for one in good for form in _forms(one, known)],
        refusals={
            status: one.get("description", "")
            for status, one in answers.items()
            if not status.startswith("2")
        },
    )


def _forms(part: Schema, known: Schema) -> Iterator[_Form]:
    for media, content in part.get("content", {}).items():
        schema = content.get("schema", {})
        names = {**known, **schema.get("$defs", {})}
        yield _Form(media, _type(schema, names), list(_keys(schema, names)), _example(content))


def _example(content: Schema) -> str:
    """The first that the document has of a body."""
    examples = [one.get("value") for one in content.get("examples", {}).values()]
    examples += [content["example"]] if "example" in content else []
    examples += content.get("schema", {}).get("examples", [])
    if not examples:
        return ""
    first = examples[0]
    return first if isinstance(first, str) else json.dumps(first, ensure_ascii=False, indent=2)


def _keys(schema: Schema, known: Schema, prefix: str = "", depth: int = 0) -> Iterator[_Key]:
    """Keys of an object, and those of the objects in it behind a dot or ``[]``."""
    schema = _resolved(schema, known)
    required = schema.get("required", ())
    for name, value in schema.get("properties", {}).items():
        yield _key(f"{prefix}{name}", value, name in required, known)
        if depth < _DEEPEST:
            for inner, mark in _within(value, known):
                yield from _keys(inner, known, f"{prefix}{name}{mark}.", depth + 1)


def _within(schema: Schema, known: Schema, mark: str = "") -> Iterator[tuple[Schema, str]]:
    """Objects that a value is or holds, and the sign of the list that they stand in."""
    schema = _resolved(schema, known)
    if "properties" in schema:
        yield schema, mark
    if "items" in schema:
        yield from _within(schema["items"], known, f"{mark}[]")
    for one in (*schema.get("anyOf", ()), *schema.get("oneOf", ())):
        yield from _within(one, known, mark)


def _key(
    name: str, schema: Schema, required: bool, known: Schema, about: Schema | None = None
) -> _Key:
    found = _resolved(schema, known)
    default = json.dumps(schema["default"]) if schema.get("default") is not None else ""
    words = (about or {}).get("description") or schema.get("description")
    return _Key(
        name, _type(schema, known), required, default, words or found.get("description", "")
    )


def _type(schema: Schema, known: Schema) -> str:
    """A schema in a few words."""
    schema = _resolved(schema, known)
    if choices := [*schema.get("anyOf", ()), *schema.get("oneOf", ())]:
        words = dict.fromkeys(_type(one, known) for one in choices)
        return " or ".join(word for word in words if word != "null")
    if "const" in schema:
        return json.dumps(schema["const"])
    if "enum" in schema:
        return " or ".join(json.dumps(one) for one in schema["enum"])
    kind = schema.get("type", "any")
    if kind == "array":
        return f"list of {_type(schema.get('items', {}), known)}"
    if schema.get("format") == "binary":
        return "file"
    limits = {"minimum": "from {}", "maximum": "to {}", "maxLength": "of {} characters at most"}
    return " ".join([kind, *(word.format(schema[k]) for k, word in limits.items() if k in schema)])


def _resolved(schema: Schema, known: Schema) -> Schema:
    """What a ``$ref`` stands for."""
    for _ in range(9):
        if "$ref" not in schema:
            break
        schema = known.get(schema["$ref"].rpartition("/")[2], {})
    return schema
