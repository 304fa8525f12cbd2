"""Read a recipe, override its keys, write it out whole, and say clearly what is wrong with it."""

import hashlib
import json
import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from ptft.errors import RecipeError, suggest
from ptft.recipe.builtin import find_recipe
from ptft.recipe.schema import Recipe

__all__ = ["dump_recipe", "load_recipe", "parse_recipe", "recipe_digest", "recipe_json_schema"]


def load_recipe(source: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read the recipe that ``source`` names, with ``a.b=c`` overrides applied in order.

    Args:
        source: a YAML file, or the name of a built-in recipe such as ``pretrain/scenes``.
        overrides: ``dotted.key=value``; the value is YAML (``optim.lr=1e-4``, ``data.val=null``,
            ``evaluate.0.split=test``).

    Raises:
        RecipeError: the file is absent or no YAML mapping, or a key or value is not allowed.
    """
    path = find_recipe(str(source))
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path}: not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(values, dict):
        raise RecipeError(f"{path}: a recipe is a YAML mapping, not {type(values).__name__}")
    for override in overrides:
        _override(values, override)
    return parse_recipe(values, where=str(path))


def parse_recipe(values: Mapping[str, Any], where: str) -> Recipe:
    """Validate plain values; ``where`` (a file's name) starts the message of an error.

    Raises:
        RecipeError: one line a problem, each naming the key, the value and what is allowed.
    """
    try:
        return Recipe.model_validate(values)
    except ValidationError as error:
        problems = [_explain(detail, values) for detail in error.errors(include_url=False)]
        unique = list(dict.fromkeys(problems))
        raise RecipeError("\n".join(f"{where}: {problem}" for problem in unique)) from None


def dump_recipe(recipe: Recipe) -> str:
    """The resolved recipe as YAML, defaults included; loading it gives an equal recipe."""
    values = recipe.model_dump(mode="json", by_alias=True)
    return yaml.safe_dump(values, sort_keys=False, allow_unicode=True, width=100)


def recipe_digest(recipe: Recipe) -> str:
    """sha256 (hex) of what determines the weights: the recipe without its ``run`` section."""
    values = recipe.model_dump(mode="json", by_alias=True, exclude={"run"})
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def recipe_json_schema() -> dict[str, Any]:
    """JSON Schema of a recipe, for editors (``# yaml-language-server: $schema=...``)."""
    schema = Recipe.model_json_schema(by_alias=True)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def _override(values: dict[str, Any], override: str) -> None:
    dotted, equals, text = override.partition("=")
    keys = dotted.strip().split(".")
    if not equals or not all(keys):
        raise RecipeError(f"override {override!r}: write it as dotted.key=value")
    try:
        value = yaml.safe_load(text) if text.strip() else ""
    except yaml.YAMLError:
        value = text  # no YAML, so plain text: a title with a colon, say
    place: Any = values
    for depth, key in enumerate(keys):
        last = depth == len(keys) - 1
        if isinstance(place, list):
            if not key.isdigit() or int(key) >= len(place):
                name = ".".join(keys[:depth])
                raise RecipeError(
                    f"override {override!r}: {name} is a list of {len(place)}; "
                    f"allowed: a number below {len(place)}"
                )
            key = int(key)  # type: ignore[assignment]
        elif not isinstance(place, dict):
            name = ".".join(keys[:depth])
            raise RecipeError(f"override {override!r}: {name} is {place!r}, which has no keys")
        if last:
            place[key] = value
        elif isinstance(place, list):
            place = place[int(key)]
        else:
            if place.get(key) is None:
                place[key] = {}
            place = place[key]


def _explain(detail: ErrorDetails, values: Mapping[str, Any]) -> str:
    """One line for one of pydantic's errors."""
    loc = _plain_location(detail["loc"], values)
    key = ".".join(str(part) for part in loc) or "recipe"
    given = detail["input"]
    shown = f"{key}: {given!r}" if _is_scalar(given) else key
    match detail["type"]:
        case "extra_forbidden":
            parent = _section_at(loc[:-1], values)
            allowed = _keys_of(parent) if parent else []
            return f"{key}: unknown key; {suggest(str(loc[-1]), allowed)}"
        case "missing":
            return f"{key}: missing"
        case "literal_error":
            choices = _quoted(str(detail["ctx"]["expected"]))
            return f"{shown}: not allowed; {_near_then_all(str(given), choices)}"
        case "union_tag_invalid":
            tag = str(detail["ctx"]["tag"])
            choices = _quoted(str(detail["ctx"]["expected_tags"]))
            return f"{key}.kind: {tag!r}: not allowed; {_near_then_all(tag, choices)}"
        case "union_tag_not_found":
            return f"{key}: needs a kind"
        case "value_error":
            return f"{key}: {str(detail['msg']).removeprefix('Value error, ')}"
        case _:
            return f"{shown}: {str(detail['msg'])[:1].lower()}{str(detail['msg'])[1:]}"


def _near_then_all(word: str, choices: list[str]) -> str:
    """The near miss, if there is one, and always the short list of choices."""
    hint = suggest(word, choices)
    listed = f"allowed: {', '.join(sorted(choices))}"
    return hint if hint == listed else f"{hint} ({listed})"


def _quoted(text: str) -> list[str]:
    return [part.strip().strip("'") for part in text.replace(" or ", ", ").split(",")]


def _is_scalar(value: object) -> bool:
    return isinstance(value, str | int | float | bool) or value is None


def _plain_location(loc: tuple[int | str, ...], values: Any) -> tuple[int | str, ...]:
    """pydantic's location without the union tags that it puts between the keys."""
    plain: list[int | str] = []
    place, annotation = values, Recipe
    for position, part in enumerate(loc):
        last = position == len(loc) - 1
        if isinstance(place, Mapping) and part in place:
            place, annotation = place[part], _field(annotation, part)
            plain.append(part)
        elif isinstance(place, list) and isinstance(part, int) and part < len(place):
            place, annotation = place[part], _item(annotation)
            plain.append(part)
        elif last and part in _keys_of(_resolve(annotation, place)):
            plain.append(part)  # a key that is missing
        else:
            annotation = _resolve(annotation, place)
    return tuple(plain)


def _section_at(loc: Sequence[int | str], values: Any) -> type[BaseModel] | None:
    place, annotation = values, Recipe
    for part in loc:
        annotation = (
            _item(annotation)
            if isinstance(part, int)
            else _field(_resolve(annotation, place), part)
        )
        place = place[part]
    return _resolve(annotation, place)


def _resolve(annotation: Any, value: Any) -> type[BaseModel] | None:
    """The section class that ``value`` is read as: unions are closed by ``kind`` or by shape."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    sections = _sections_in(annotation)
    if len(sections) <= 1 or not isinstance(value, Mapping):
        return sections[0] if sections else None
    if "kind" in value:
        for section in sections:
            field = section.model_fields.get("kind")
            if field is not None and field.default == value["kind"]:
                return section
    return max(sections, key=lambda section: len(set(section.model_fields) & set(value)))


def _sections_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    origin = typing.get_origin(annotation)
    if origin is typing.Annotated:
        return _sections_in(typing.get_args(annotation)[0])
    if origin in (typing.Union, types.UnionType):
        return [found for part in typing.get_args(annotation) for found in _sections_in(part)]
    return []


def _field(annotation: Any, key: int | str) -> Any:
    if not (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
        candidates = [s for s in _sections_in(annotation) if key in _keys_of(s)]
        if not candidates:
            return None
        annotation = candidates[0]
    for name, field in annotation.model_fields.items():
        if key in (name, field.alias):
            return field.annotation
    return None


def _item(annotation: Any) -> Any:
    for part in typing.get_args(annotation) or ():
        if part is not type(None):
            return part
    return None


def _keys_of(section: type[BaseModel] | None) -> list[str]:
    if section is None:
        return []
    return [field.alias or name for name, field in section.model_fields.items()]
