"""The names of classes, as ``data.classes`` gives them."""

from collections import Counter
from collections.abc import Sequence
from io import BufferedReader
from pathlib import Path
from typing import Any

from ptft.data.fields.templates import clean_text
from ptft.errors import RecipeError
from ptft.files.bounds import load_row, shown
from ptft.files.own import open_plain

__all__ = ["load_classes"]

_MAX_FILE = 64 << 20  # bytes; the 21,000 classes of ImageNet have 1 MB
_MAX_NAME = 4096  # characters, as of a cls file in a tar


def load_classes(given: str | Sequence[str]) -> list[str]:
    """Class names from ``data.classes``: a list, a text file, or a JSON file.

    Raises:
        RecipeError: the file is absent or of another form, or a name is blank or comes twice.
    """
    key = f"data.classes: {given!r}" if isinstance(given, str) else "data.classes"
    names: list[Any] = list(given) if not isinstance(given, str) else _read_classes(given, key)
    for number, name in enumerate(names):
        if not isinstance(name, str) or not clean_text(name):
            raise RecipeError(f"{key}: class {number} is {shown(name)}; allowed: a name")
        if len(name) > _MAX_NAME:
            raise RecipeError(
                f"{key}: class {number} has {len(name):,} characters; allowed: {_MAX_NAME:,}"
            )
    names = [clean_text(name) for name in names]
    twice = sorted(name for name, count in Counter(names).items() if count > 1)
    if twice or not names:
        what = f"{twice[0]!r} comes twice" if twice else "it is empty"
        raise RecipeError(f"{key}: {what}; allowed: one name a class, all different")
    return names


def _read_classes(given: str, key: str) -> list[Any]:
    try:
        path = Path(given).expanduser()
        with BufferedReader(open_plain(path)) as stream:
            data = stream.read(_MAX_FILE + 1)
        if len(data) > _MAX_FILE:
            raise RecipeError(f"{key}: more than {_MAX_FILE:,} bytes; allowed: at most that many")
        text = data.decode("utf-8-sig")
    except (FileNotFoundError, IsADirectoryError):
        raise RecipeError(f"{key}: no such file") from None
    except (OSError, RuntimeError) as error:
        raise RecipeError(f"{key}: {getattr(error, 'strerror', None) or error}") from None
    except UnicodeDecodeError as error:
        raise RecipeError(
            f"{key}: line {_line_of(error)}: not UTF-8 ({error.reason}); save it as UTF-8, or: "
            f"iconv -f cp1252 -t utf-8"
        ) from None
    if path.suffix.lower() != ".json":
        return text.rstrip().splitlines()
    try:
        values = load_row(text)
    except (ValueError, RecursionError) as error:
        raise RecipeError(f"{key}: not JSON: {error}") from None
    if not isinstance(values, list):
        raise RecipeError(f"{key}: {type(values).__name__}; allowed: a list of names or of objects")
    if values and all(isinstance(value, dict) and "id" in value for value in values):
        ids = [value["id"] for value in values]
        if any(not isinstance(one, int) or isinstance(one, bool) for one in ids):
            raise RecipeError(f"{key}: ids; allowed: whole numbers")
        values.sort(key=lambda value: value["id"])
        if sorted(ids) != list(range(len(values))):
            raise RecipeError(f"{key}: ids; allowed: 0 to {len(values) - 1}, each once")
    return [_class_name(value) for value in values]


def _line_of(error: UnicodeDecodeError) -> int:
    return bytes(error.object[: error.start]).count(b"\n") + 1


def _class_name(value: Any) -> Any:
    if isinstance(value, dict):
        return value.get("text") or value.get("name")
    return value
