"""The recipe's reference in Markdown, from the JSON Schema that pydantic makes of its sections.

Shown is whatever a section and a key say of themselves: docstring, type, bounds and default. A key
that says nothing ends the build.
"""

import json
import re
from typing import Any

from ptft.recipe import Comparison, StagedRecipe

__all__ = ["recipe_reference"]

Schema = dict[str, Any]


def recipe_reference() -> str:
    """Markdown: a heading for each section of a recipe, a definition for each of its keys."""
    schemas = [model.model_json_schema(by_alias=True) for model in (StagedRecipe, Comparison)]
    keys = {key: value for schema in schemas for key, value in schema["properties"].items()}
    defs = {name: part for schema in schemas for name, part in schema["$defs"].items()}
    plain = {key: value for key, value in keys.items() if not _named(value)}
    lines = ["## Keys without a section", "", *_definitions(plain, ["name"])]
    told = {name for value in keys.values() for name in _named(value)}
    for key, value in keys.items():
        if names := _named(value):
            lines += [f"## {key}", "", *_said(value), *_sections(names, key, defs, told)]
    return "\n".join(lines)


def _named(value: Schema) -> list[str]:
    """Names of the sections that a key's value may be, in the schema's order."""
    return list(dict.fromkeys(re.findall(r'"\$ref": "#/\$defs/(\w+)"', json.dumps(value))))


def _sections(
    names: list[str], path: str, defs: dict[str, Schema], told: set[str], depth: int = 3
) -> list[str]:
    """Each section that may stand at a path, and below it those that have no heading elsewhere."""
    lines: list[str] = []
    for part in (defs[name] for name in names):
        kind = part["properties"].get("kind", {}).get("const")
        if len(names) > 1:
            title = f"kind: {kind}" if kind else f"{part['required'][0]}: ..."
            lines += [f"{'#' * depth} {path} with `{title}`", ""]
        lines += [*_said(part), *_definitions(part["properties"], part.get("required", []))]
        for key, value in part["properties"].items():
            below = _named(value)
            if below and not told & set(below):
                lines += [f"{'#' * depth} {path}.{key}", ""]
                lines += _sections(below, f"{path}.{key}", defs, told, depth + 1)
    return lines


def _said(value: Schema) -> list[str]:
    text = value.get("description")
    return [text, ""] if text else []


def _definitions(properties: dict[str, Schema], required: list[str]) -> list[str]:
    lines: list[str] = []
    for key, value in properties.items():
        if "const" in value:  # the kind, which the heading says
            continue
        facts = [_type(value)]
        if key in required:
            facts.append("required")
        elif value.get("default") is not None:
            facts.append(f"default `{json.dumps(value['default'], ensure_ascii=False)}`")
        text = value.get("description") or ("A section." if _named(value) else None)
        if text is None:
            raise ValueError(f"the schema says nothing of {key!r}; give it a docstring")
        lines += [f"**`{key}`** ({'; '.join(facts)})", f": {text}".replace("\n", "\n  "), ""]
    return lines


def _type(value: Schema) -> str:
    """A value's type and bounds in words."""
    if "$ref" in value:
        return "a section"
    if "const" in value:
        return f"`{json.dumps(value['const'])}`"
    if "enum" in value:
        return ", ".join(f"`{each}`" for each in value["enum"])
    for union in ("anyOf", "oneOf"):
        if union in value:
            return " or ".join(dict.fromkeys(_type(each) for each in value[union]))
    kind = value.get("type", "any value")
    if kind == "array":
        inner, count = value.get("items"), value.get("maxItems")
        return f"{count} values" if inner is None else f"list of {_type(inner)}"
    named = {"object": "keys and values", "string": "text", "integer": "whole number"}
    named |= {"boolean": "`true` or `false`", "null": "`null`"}
    signs = {"exclusiveMinimum": "above", "minimum": "from"}
    signs |= {"exclusiveMaximum": "below", "maximum": "to"}
    bounds = " ".join(f"{word} {value[sign]:g}" for sign, word in signs.items() if sign in value)
    return f"{named.get(kind, kind)} {bounds}".strip()
