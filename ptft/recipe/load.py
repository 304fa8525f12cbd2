"""Find and read a recipe, override its keys, write it out whole, and say clearly what is wrong with
it. The recipes that come with ptft lie in the wheel beside the code, in a checkout at the top."""

import copy
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import TypeAdapter, ValidationError

from ptft.errors import RecipeError, suggest
from ptft.printable import credential_in
from ptft.recipe.comparison import Comparison
from ptft.recipe.data import ADDED, INDIFFERENT
from ptft.recipe.explain import explain
from ptft.recipe.schema import Recipe
from ptft.recipe.sequence import StagedRecipe
from ptft.recipe.yaml_text import MAX_YAML, dump_values, first_bad_value, read_yaml

__all__ = [
    "apply_override",
    "builtin_recipes",
    "deciding_values",
    "dump_recipe",
    "find_recipe",
    "load_any",
    "load_comparison",
    "load_recipe",
    "parse_comparison",
    "parse_recipe",
    "read_values",
    "recipe_digest",
    "recipe_json_schema",
    "set_key",
]

_PROBLEMS = 40  # that are told at once

_Kind = TypeVar("_Kind", bound=Recipe)


def load_recipe(source: str | Path | Mapping[str, Any], overrides: Sequence[str] = ()) -> Recipe:
    """Read the recipe that ``source`` names, with ``a.b=c`` overrides applied in order.

    One with ``stages`` is a :class:`StagedRecipe`.

    Args:
        source: a YAML file, the name of a built-in recipe such as ``pretrain/scenes``, or values.
        overrides: ``dotted.key=value``; the value is YAML (``optim.lr=1e-4``, ``data.val=null``,
            ``evaluate.0.split=test``).

    Raises:
        RecipeError: the file is absent or no YAML mapping, or a key or value is not allowed.
    """
    values, where = read_values(source, overrides)
    return parse_recipe(values, where)


def load_any(source: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """The same of any recipe: a :class:`Comparison` where there is a ``compare`` section."""
    values, where = read_values(source, overrides)
    return _parse(values, where, Comparison) if "compare" in values else parse_recipe(values, where)


def parse_comparison(values: Mapping[str, Any], where: str) -> Comparison:
    """The same as :func:`parse_recipe` of a comparison."""
    return _parse(values, where, Comparison)


def load_comparison(source: str | Path, overrides: Sequence[str] = ()) -> Comparison:
    """The same of a recipe with a ``compare`` section; absent, the section has its defaults."""
    return _parse(*read_values(source, overrides), Comparison)


def read_values(
    source: str | Path | Mapping[str, Any], overrides: Sequence[str] = ()
) -> tuple[dict[str, Any], str]:
    """The plain values of a file (or a copy of those given) with overrides, not checked yet, and
    what to call it.

    Raises:
        RecipeError: the file is absent, too large, or no YAML mapping.
    """
    if isinstance(source, Mapping):
        values, where = copy.deepcopy(dict(source)), str(source.get("name", "recipe"))
    else:
        values, where = _read_file(find_recipe(str(source)))
    for override in overrides:
        apply_override(values, override)
    return values, where


def _read_file(path: Path) -> tuple[dict[str, Any], str]:
    try:
        with path.open("rb") as stream:
            data = stream.read(MAX_YAML + 1)
        values = read_yaml(data.decode("utf-8"))
    except OSError as error:
        raise RecipeError(f"{path}: {error.strerror or error}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path}: not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(values, dict):
        raise RecipeError(f"{path}: a recipe is a YAML mapping, not {type(values).__name__}")
    return values, str(path)


def parse_recipe(values: Mapping[str, Any], where: str) -> Recipe:
    """Validate plain values; ``where`` (a file's name) starts the message of an error.

    Raises:
        RecipeError: one line a problem, each naming the key, the value and what is allowed.
    """
    return _parse(values, where, StagedRecipe if "stages" in values else Recipe)


def _parse(values: Mapping[str, Any], where: str, kind: type[_Kind]) -> _Kind:
    if kind is not Comparison and "compare" in values:
        raise RecipeError(f"{where}: compare: a comparison of several runs; run: ptft compare")
    if (bad := first_bad_value(dict(values))) is not None:
        raise RecipeError(f"{where}: {bad}")
    if (found := credential_in(dict(values))) is not None:  # recipes are copied and passed on
        raise RecipeError(
            f"{where}: {found}, which is not shown here; allowed: none, credentials come from the "
            "environment"
        )
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        problems = explain(error.errors(include_url=False), values, kind)
        if len(problems) > _PROBLEMS:
            problems[_PROBLEMS:] = [f"and {len(problems) - _PROBLEMS} problems more"]
        raise RecipeError(*(f"{where}: {problem}" for problem in problems)) from None


def dump_recipe(recipe: Recipe) -> str:
    """The resolved recipe as YAML, defaults included; loading it gives an equal recipe."""
    values = recipe.model_dump(mode="json", by_alias=True)
    return dump_values(values)


def recipe_digest(recipe: Recipe) -> str:
    """sha256 (hex) of what determines the weights, see :func:`deciding_values`."""
    values = deciding_values(recipe)
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def deciding_values(recipe: Recipe) -> dict[str, Any]:
    """The keys that determine the weights, with their values: all but the ``run`` section and what
    a data section says of caches and of how much may be skipped."""
    values = recipe.model_dump(mode="json", by_alias=True, exclude={"run"})
    stages = values.get("stages", [])
    items = [*values["evaluate"], *(stage["evaluate"] for stage in stages)]
    sections = [values["data"], *(stage["data"] for stage in stages)]
    sections += (item["data"] for item in items if item["data"])
    sections += [one["unlabelled"] for one in sections if one.get("unlabelled")]
    for section in sections:
        for part in [section, *(part["data"] for part in section.get("parts", []))]:
            for key in INDIFFERENT & part.keys():
                del part[key]
    for section in (values["objective"], *items):
        if section.get("reads") == "image":
            del section["reads"]  # as before there was a choice, so that digests stay
        if section.get("matryoshka", ()) is None:
            del section["matryoshka"]  # likewise
        for key, plain in (("class_weights", None), ("focal", 0.0)):
            if section.get(key, ()) == plain:
                del section[key]
    _drop_added(values)
    return values


def _drop_added(values: Any) -> None:
    """Leave keys that came later out where they say what was done before them, in place."""
    if isinstance(values, list):
        for entry in values:
            _drop_added(entry)
    elif isinstance(values, dict):
        if ADDED.keys() <= values.keys():
            for key in [key for key, default in ADDED.items() if values[key] == default]:
                del values[key]
        if values.get("kind") == "scenes" and values.get("labels") == "one":
            del values["labels"]
        for key, plain in (("places", 1), ("count", False)):
            if values.get("kind") == "detect" and values.get(key) == plain:
                del values[key]
        for key in ("lr_head", "self_train", "unlabelled", "draw_seed"):
            if values.get(key, ()) is None:
                del values[key]
        if "weight" in values and values.get("templates", ()) is None:
            del values["templates"]  # of a mixture's part
        for entry in values.values():
            _drop_added(entry)


def recipe_json_schema() -> dict[str, Any]:
    """JSON Schema of a recipe, for editors (``# yaml-language-server: $schema=...``)."""
    schema = TypeAdapter(Recipe | StagedRecipe | Comparison).json_schema(by_alias=True)
    plain, staged, compared = schema.pop("anyOf")
    schema["$defs"][StagedRecipe.__name__]["required"].remove("data")  # the first stage's
    single = {"if": {"required": ["compare"]}, "then": compared, "else": plain}
    branches = {"if": {"required": ["stages"]}, "then": staged, "else": single}
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, **branches}


def apply_override(values: dict[str, Any], override: str) -> None:
    """Set what ``dotted.key=value`` says in nested plain values; see :func:`load_recipe`.

    Raises:
        RecipeError: it is not of that form, or leads through something that has no such key.
    """
    dotted, equals, text = override.partition("=")
    keys = dotted.strip().split(".")
    if not equals or not all(keys):
        raise RecipeError(f"override {override!r}: write it as dotted.key=value")
    try:
        value = read_yaml(text) if text.strip() else ""
    except yaml.YAMLError:
        value = text  # no YAML, so plain text: a title with a colon, say
    set_key(values, dotted.strip(), value, what=f"override {override!r}")


def set_key(values: dict[str, Any], dotted: str, value: Any, *, what: str) -> None:
    """Set ``a.b.0.c`` in nested plain values; ``what`` starts the message of an error.

    Raises:
        RecipeError: the path leads through something that has no such key.
    """
    keys = dotted.split(".")
    place: Any = values
    for depth, key in enumerate(keys):
        last = depth == len(keys) - 1
        if isinstance(place, list):
            right = key.isascii() and key.isdecimal() and len(key) < 10
            if not right or int(key) >= len(place):
                name = ".".join(keys[:depth])
                raise RecipeError(
                    f"{what}: {name} is a list of {len(place)}; "
                    f"allowed: a number below {len(place)}"
                )
            key = int(key)  # type: ignore[assignment]
        elif not isinstance(place, dict):
            name = ".".join(keys[:depth])
            raise RecipeError(f"{what}: {name} is {place!r}, which has no keys")
        if last:
            place[key] = value
        elif isinstance(place, list):
            place = place[int(key)]
        else:
            if place.get(key) is None:
                place[key] = {}
            place = place[key]


def _folder() -> Path:
    package = Path(__file__).resolve().parent.parent
    shipped = package / "recipes"
    return shipped if shipped.is_dir() else package.parent / "recipes"


def builtin_recipes() -> dict[str, Path]:
    """Names such as ``pretrain/scenes`` and the YAML file of each, sorted by name."""
    folder = _folder()
    found = sorted(folder.glob("*/*.yaml"))
    return {path.relative_to(folder).with_suffix("").as_posix(): path for path in found}


def find_recipe(name: str) -> Path:
    """The file that ``name`` means: a path, or the name of a recipe that comes with ptft.

    Raises:
        RecipeError: neither exists; the message offers the near misses.
    """
    path = Path(name)
    if path.is_file():
        return path
    known = builtin_recipes()
    short = name.removeprefix("recipes/").removesuffix(".yaml")
    if short in known:
        return known[short]
    raise RecipeError(f"recipe {name!r}: no such file or built-in recipe; {suggest(short, known)}")
