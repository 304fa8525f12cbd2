"""In which keys two recipes differ, as far as that decides a run's weights."""

from typing import Any

from ptft.recipe import Recipe, deciding_values, recipe_digest

__all__ = ["recipe_changes"]

_ABSENT = object()


def recipe_changes(given: Recipe, recorded: Recipe, *, places: bool = True) -> list[str]:
    """Each key in which two recipes differ, ``run`` and a measured precision apart, in words.

    Args:
        given: the recipe "here".
        recorded: that of a run, "there".
        places: whether it matters where data and models lie.
    """
    if given.optim.precision == "auto":
        optim = given.optim.model_copy(update={"precision": recorded.optim.precision})
        given = given.model_copy(update={"optim": optim})
    if recipe_digest(given) == recipe_digest(recorded):
        return []
    here, there = (
        dict(_leaves(values if places else _placeless(values)))
        for values in (deciding_values(given), deciding_values(recorded))
    )
    found = [
        f"{key} is {_shown(there, key)} there and {_shown(here, key)} here"
        for key in dict.fromkeys([*here, *there])
        if here.get(key, _ABSENT) != there.get(key, _ABSENT)
    ]
    return found or (["they differ"] if places else [])


def _shown(values: dict[str, Any], key: str) -> str:
    return repr(values[key]) if key in values else "absent"


def _placeless(values: Any, key: str = "") -> Any:
    """A recipe's values with a word in place of each path of data or of a model."""
    if isinstance(values, dict):
        return {name: _placeless(value, name) for name, value in values.items()}
    if key == "parts" or (isinstance(values, list) and values and isinstance(values[0], dict)):
        return [_placeless(value) for value in values]
    is_path = key in ("train", "val", "test") and isinstance(values, str | list)
    is_path |= key in ("classes", "from") and isinstance(values, str)
    return "somewhere" if is_path else values


def _leaves(values: Any, prefix: str = "") -> list[tuple[str, Any]]:
    if isinstance(values, dict):
        items = [(f"{prefix}.{key}" if prefix else str(key), v) for key, v in values.items()]
        return [leaf for key, value in items for leaf in _leaves(value, key)]
    return [(prefix, values)]
