"""What is wrong with a recipe, in its own words: key, value, what is allowed, near misses.

pydantic reports where a problem lies as a path through the values and through the types: behind
each union it names the member that it tried. The types are left out here, since a recipe has only
keys; where several members were tried, only those of the value's own shape are told of.
"""

import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, Tag
from pydantic_core import ErrorDetails

from ptft.errors import suggest

__all__ = ["explain"]

Location = tuple[int | str, ...]


def explain(details: Sequence[ErrorDetails], values: Any, root: type[BaseModel]) -> list[str]:
    """One line for each problem that pydantic found in ``values``, read as ``root``."""
    found = [(detail, _locate(detail["loc"], values, root)) for detail in details]
    told = {place.union for _, place in found if place.union is not None and place.suits}
    lines = [
        _line(detail, place) for detail, place in found if place.suits or place.union not in told
    ]
    return list(dict.fromkeys(lines))


@dataclass(frozen=True)
class _Place:
    """Where a problem lies.

    Attributes:
        keys: as the recipe has them.
        holder: the section (or other type) that the last key belongs to.
        inner: the type of the last key's value.
        union: the keys of the last union on the way, if there was one with several shapes.
        suits: False where a member of another shape than the value's was tried there.
    """

    keys: Location
    holder: Any
    inner: Any
    union: Location | None
    suits: bool


def _line(detail: ErrorDetails, place: _Place) -> str:
    key = ".".join(str(part) for part in place.keys) or "recipe"
    given = detail["input"]
    shown = f"{key}: {given!r}" if _is_scalar(given) else key
    match detail["type"]:
        case "extra_forbidden":
            return f"{key}: unknown key; {suggest(str(place.keys[-1]), _keys_of(place.holder))}"
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
            kinds = [kind for member in _members(place.inner) for kind in _kind(member)]
            return f"{key}: needs a kind; allowed: {', '.join(sorted(kinds))}"
        case "model_type" | "model_attributes_type" | "dict_type":
            return f"{shown}: allowed: a section, that is keys with values"
        case "string_type" if given is True or given is False:
            return f"{shown}: allowed: a text; YAML takes yes, no, on and off for {given}: quote it"
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


def _locate(loc: Location, values: Any, root: type[BaseModel]) -> _Place:
    keys: list[int | str] = []
    annotation: Any = root
    holder: Any = None
    value = values
    union: Location | None = None
    suits = True
    for part in loc:
        members = _members(annotation)
        if len(members) > 1:  # this part names the member
            annotation = _member(members, part)
            if not all(_is_section(member) for member in members):
                union = tuple(keys)
                suits = suits and _shape_suits(annotation, value)
            continue
        holder = members[0]
        keys.append(part)
        annotation = _inside(holder, part)
        value = _value_at(value, part)
    return _Place(tuple(keys), holder, annotation, union, suits)


def _members(annotation: Any) -> list[Any]:
    """The alternatives of a union without None; one where it is no union."""
    plain = _plain(annotation)
    if typing.get_origin(plain) not in (typing.Union, types.UnionType):
        return [plain]
    some = [part for part in typing.get_args(plain) if part is not type(None)]
    return some if len(some) > 1 else _members(some[0])


def _member(members: list[Any], label: int | str) -> Any:
    """The alternative that pydantic calls ``label``: by tag, by ``kind``, or by the type's name."""
    for member in members:
        tags = [data.tag for data in typing.get_args(member) if isinstance(data, Tag)]
        plain = _plain(member)
        if _is_section(plain):
            name = plain.__name__  # inside brackets where the section has a validator of its own
            if label in [*tags, name, *_kind(plain)] or f"{name}]" in str(label):
                return plain
        elif str(label).startswith(str(getattr(typing.get_origin(plain) or plain, "__name__", ""))):
            return plain
    return None


def _plain(annotation: Any) -> Any:
    while typing.get_origin(annotation) is typing.Annotated:
        annotation = typing.get_args(annotation)[0]
    return annotation


def _is_section(annotation: Any) -> bool:
    plain = _plain(annotation)
    return isinstance(plain, type) and issubclass(plain, BaseModel)


def _shape_suits(annotation: Any, value: Any) -> bool:
    origin = typing.get_origin(annotation)
    if isinstance(value, Mapping):
        return _is_section(annotation) or origin is dict
    if isinstance(value, list):
        return origin in (list, tuple)
    return not _is_section(annotation) and origin not in (dict, list, tuple)


def _inside(holder: Any, part: int | str) -> Any:
    """The type of a key's value, or of an item."""
    if _is_section(holder):
        for name, field in holder.model_fields.items():
            if part == (field.alias or name):
                return field.annotation
        return None
    inner = typing.get_args(holder)
    return inner[-1] if inner else None


def _value_at(value: Any, part: int | str) -> Any:
    if isinstance(value, Mapping):
        return value.get(part)
    if isinstance(value, list) and isinstance(part, int) and part < len(value):
        return value[part]
    return None


def _kind(section: Any) -> list[str]:
    """The value of ``kind`` that chooses a section, if it has one."""
    field = _plain(section).model_fields.get("kind")
    return [field.default] if field else []


def _keys_of(holder: Any) -> list[str]:
    if not _is_section(holder):
        return []
    return [field.alias or name for name, field in holder.model_fields.items()]
