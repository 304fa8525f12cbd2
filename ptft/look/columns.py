"""Which columns of a table, or fields of a sample, are probably picture, text and class.

Names decide, and what the first row holds under them; nothing is guessed from contents alone.
"""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

__all__ = ["Columns", "guess_columns"]

_PICTURES = ("image", "img", "picture", "photo", "jpg", "jpeg", "png", "webp")
_TEXTS = (
    *("text", "txt", "caption", "captions", "sentence", "sentences", "sentences_raw"),
    *("description", "prompt", "title", "alt_text", "alt", "name", "en"),
)
_CLASSES = ("label", "labels", "class", "cls", "category", "class_name", "label_name", "target")


class Columns(NamedTuple):
    """Names of columns; None where none has a name that is usual for it."""

    picture: str | None
    text: str | None
    label: str | None


def guess_columns(first: Mapping[str, Any], *, given: Iterable[str] = ()) -> Columns:
    """Guess the columns by a first row.

    Args:
        first: name -> value; bytes, or a mapping with ``bytes``, may be a picture.
        given: columns that are taken already, such as ``file_name``.
    """
    free = {name: value for name, value in first.items() if name not in set(given)}
    picture = _find(_PICTURES, free, _is_picture)
    text = _find(_TEXTS, free, _is_text)
    rest = {name: value for name, value in free.items() if name not in (picture, text)}
    label = _find(_CLASSES, rest, lambda value: isinstance(value, str | int))
    return Columns(picture, text, label)


def _find(names: Iterable[str], row: Mapping[str, Any], fits: Any) -> str | None:
    there = {name.lower(): name for name in reversed(list(row))}
    found = (there[name] for name in names if name in there)
    return next((name for name in found if row[name] is not None and fits(row[name])), None)


def _is_picture(value: Any) -> bool:
    data = value.get("bytes") if isinstance(value, Mapping) else value
    return isinstance(data, bytes | bytearray)


def _is_text(value: Any) -> bool:
    if isinstance(value, list):
        return bool(value) and all(isinstance(one, str) for one in value)
    return isinstance(value, str)
