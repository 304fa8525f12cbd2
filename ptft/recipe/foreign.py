"""The recipe of an artefact: what it was made by, and nothing that it may tell this machine.

A run or model folder may be anybody's. What its recipe says of the machine (the ``run`` section:
folders, processes, trackers; where fetched shards are kept and how many) was about the machine
that wrote it: here it has its defaults. None of it is in a recipe's digest.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ptft.recipe.load import apply_override, parse_recipe, read_values
from ptft.recipe.schema import Recipe

__all__ = ["LOCAL", "drop_local", "load_foreign"]

LOCAL = frozenset({"cache", "cache_gb"})
"""Keys of a data section that are about the machine, as the whole section ``run`` is."""


def load_foreign(path: Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read the recipe that lies in a run or model folder.

    Args:
        path: of the file.
        overrides: ``dotted.key=value`` of whoever asks, who may say where things lie here.

    Raises:
        RecipeError: as of :func:`ptft.recipe.load_recipe`.
    """
    values, where = read_values(path)
    drop_local(values)
    for override in overrides:
        apply_override(values, override)
    return parse_recipe(values, where)


def drop_local(values: dict[str, Any]) -> None:
    """Leave out what is about a machine, in place; whatever is of another shape is left to the
    checks of a recipe."""
    values.pop("run", None)
    for section in _sections(values):
        for key in LOCAL & section.keys():
            del section[key]


def _sections(values: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Every data section of a recipe's values."""
    holders = [values, *_mappings(values.get("evaluate"))]
    guard = values.get("guard")
    known = guard.get("known") if isinstance(guard, dict) else None
    found = _mappings(known)
    for stage in _mappings(values.get("stages")):
        holders += [stage, *_mappings([stage.get("evaluate")])]
    for holder in holders:
        found += _mappings([holder.get("data")])
    for section in found:
        yield section
        for part in _mappings(section.get("parts")):
            yield from _mappings([part.get("data")])


def _mappings(values: Any) -> list[dict[str, Any]]:
    return [v for v in values if isinstance(v, dict)] if isinstance(values, list) else []
