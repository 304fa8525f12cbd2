"""Classes by name and by number, and where their names come from."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ptft.data.templates import is_there
from ptft.errors import RecipeError, SampleError, suggest

__all__ = ["ClassNumbers", "load_classes", "natural_classes"]

_SHOWN = 80  # characters of a label in a message


class ClassNumbers:
    """Labels -> numbers of classes.

    Args:
        names: in the order of their numbers.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self.names = list(names)
        self._numbers = {name: number for number, name in enumerate(names)}

    def __call__(self, label: Any, sample: str) -> int:
        """The number of the class that ``label`` names, or gives as a number.

        Raises:
            SampleError: there is no such class; names the sample, the label and the near misses.
        """
        text = _label_text(label)
        number = self._numbers.get(text)
        if number is None and text.isdecimal():
            number = int(text)
        if number is None or number >= len(self.names):
            allowed = suggest(text, self.names)
            if text.lstrip("-").isdecimal():
                allowed = f"allowed: 0 to {len(self.names) - 1}, or a class name"
            raise SampleError(
                f"{sample}: label {text[:_SHOWN]!r} is not in data.classes; {allowed}",
                "mislabelled",
            )
        return number


def natural_classes(labels: Iterable[Any]) -> list[str]:
    """The distinct labels as names, sorted; whole numbers by their value."""
    distinct = {_label_text(label) for label in labels if is_there(label)}
    if all(text.lstrip("-").isdecimal() for text in distinct):
        return sorted(distinct, key=int)
    return sorted(distinct)


def load_classes(given: str | Sequence[str]) -> list[str]:
    """Class names from ``data.classes``: a list, a text file, or a JSON file.

    Raises:
        RecipeError: the file is absent or of another form, or a name is blank or comes twice.
    """
    key = f"data.classes: {given!r}" if isinstance(given, str) else "data.classes"
    names: list[Any] = list(given) if not isinstance(given, str) else _read_classes(given, key)
    for number, name in enumerate(names):
        if not isinstance(name, str) or not name.strip():
            raise RecipeError(f"{key}: class {number} is {name!r}; allowed: a name")
    names = [name.strip() for name in names]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice or not names:
        what = f"{twice[0]!r} comes twice" if twice else "it is empty"
        raise RecipeError(f"{key}: {what}; allowed: one name a class, all different")
    return names


def _label_text(label: Any) -> str:
    """A label as a name; 3, 3.0 and "3" are one."""
    if isinstance(label, float | np.floating) and float(label).is_integer():
        label = int(label)
    return str(label).strip()


def _read_classes(given: str, key: str) -> list[Any]:
    path = Path(given).expanduser()
    try:
        text = path.read_text(encoding="utf-8")
    except (FileNotFoundError, IsADirectoryError):
        raise RecipeError(f"{key}: no such file") from None
    except UnicodeDecodeError as error:
        raise RecipeError(f"{key}: not UTF-8: {error}") from None
    if path.suffix.lower() != ".json":
        return [line for line in text.splitlines() if line.strip()]
    try:
        values = json.loads(text)
    except json.JSONDecodeError as error:
        raise RecipeError(f"{key}: not JSON: {error}") from None
    if not isinstance(values, list):
        raise RecipeError(f"{key}: {type(values).__name__}; allowed: a list of names or of objects")
    if values and all(isinstance(value, dict) and "id" in value for value in values):
        values.sort(key=lambda value: value["id"])
        if [value["id"] for value in values] != list(range(len(values))):
            raise RecipeError(f"{key}: ids; allowed: 0 to {len(values) - 1}, each once")
    return [_class_name(value) for value in values]


def _class_name(value: Any) -> Any:
    if isinstance(value, dict):
        return value.get("text") or value.get("name")
    return value
