"""YOLO's text files: a line a box, class and shares of the picture's sides.

A split is a ``data.yaml`` (whose key of the split's name says where the pictures are), a folder of
pictures, a folder with ``images`` and ``labels`` in it, or a text file that lists pictures. The
labels of ``images/a/b.jpg`` are ``labels/a/b.txt``; a picture without such a file shows nothing.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from ptft.data.boxes.box import BoxTally
from ptft.data.boxes.entry import Annotated, Entry, MarkedThing
from ptft.data.listing import is_picture, list_pictures
from ptft.errors import DataError
from ptft.files.bounds import read_bytes, shown
from ptft.recipe.yaml_text import read_yaml

__all__ = ["read_yolo"]

_MAX_LABELS = 16 << 20
_MAX_LIST = 256 << 20
_BEYOND = 1.05  # shares above it are pixels, or nonsense; up to it they are rounding


def read_yolo(path: Path, split: str, classes: Sequence[str] | None) -> Annotated:
    """Read a split.

    Args:
        split: the key in ``data.yaml``.
        classes: names in the order of their numbers, where ``data.yaml`` has none.

    Raises:
        DataError: a file is absent or damaged, or nobody names the classes.
    """
    names = list(classes) if classes else None
    pictures: list[Path] = []
    if path.suffix.lower() in (".yaml", ".yml"):
        values = _read_yaml(path)
        if not isinstance(values, dict):
            raise DataError(f"{path}: {shown(values)}; allowed: keys {split} and names")
        names = names or _names(values.get("names"), path)
        for place in _places(values, split, path):
            pictures += _pictures(place)
    else:
        pictures = _pictures(path)
    if names is None:
        raise DataError(f"{path}: the classes have numbers; data.classes has to name them")
    tally = BoxTally()
    entries = tuple(_entry(picture, names, tally) for picture in pictures)
    if not entries:
        raise DataError(f"{path}: no picture there")
    return Annotated(entries, tuple(names), tally)


def _read_yaml(path: Path) -> Any:
    text = read_bytes(path, limit=_MAX_LABELS, error=DataError).decode("utf-8", "replace")
    try:
        return read_yaml(text)
    except yaml.YAMLError as error:
        raise DataError(f"{path}: not YAML: {' '.join(str(error).split())}") from None


def _places(values: dict[str, Any], split: str, path: Path) -> list[Path]:
    given = values.get(split, values.get("valid") if split == "val" else None)
    listed = [place for place in (given if isinstance(given, list) else [given]) if place]
    if not listed or not all(isinstance(place, str) for place in listed):
        raise DataError(f"{path}: {split}: {shown(given)}; allowed: a path, or a list of them")
    root = values.get("path")
    base = path.parent / root if isinstance(root, str) else path.parent
    places = []
    for place in listed:
        tried = [base / place, path.parent / place, path.parent / place.removeprefix("../")]
        found = next((one for one in tried if one.exists()), None)
        if found is None:
            raise DataError(f"{path}: {split}: {place}: no such folder or file")
        places.append(found)
    return places


def _names(given: Any, path: Path) -> list[str] | None:
    if isinstance(given, dict):
        if sorted(given) != list(range(len(given))):
            raise DataError(
                f"{path}: names: {shown(sorted(given, key=str))}; allowed: 0, 1, 2, ..."
            )
        given = [given[number] for number in range(len(given))]
    if given is None:
        return None
    if not isinstance(given, list) or not all(isinstance(n, str) and n.strip() for n in given):
        raise DataError(f"{path}: names: {shown(given)}; allowed: a list of names")
    if len(set(given)) != len(given):
        raise DataError(f"{path}: names: one comes twice")
    return [name.strip() for name in given]


def _pictures(place: Path) -> list[Path]:
    if place.is_dir():
        folder = place / "images" if (place / "images").is_dir() else place
        return [folder / name for name in list_pictures(folder).pictures]
    text = read_bytes(place, limit=_MAX_LIST, error=DataError).decode("utf-8", "replace")
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    for line in lines:
        if not is_picture(line):
            raise DataError(f"{place}: {shown(line)}; allowed: a path of a picture a line")
    return [place.parent / line for line in lines]


def _labels_of(picture: Path) -> Path:
    """The last ``images`` of the path is ``labels``."""
    parts = list(picture.parts)
    for place in range(len(parts) - 2, -1, -1):
        if parts[place] == "images":
            parts[place] = "labels"
            break
    return Path(*parts).with_suffix(".txt")


def _entry(picture: Path, names: Sequence[str], tally: BoxTally) -> Entry:
    file = _labels_of(picture)
    things = []
    if file.is_file():
        data = read_bytes(file, limit=_MAX_LABELS, error=DataError)
        for number, line in enumerate(data.decode("utf-8", "replace").splitlines(), 1):
            if line.strip():
                things.append(_thing(line.split(), names, f"{file}: line {number}", tally))
    return Entry(picture.name, picture, tuple(things), relative=True)


def _thing(words: list[str], names: Sequence[str], where: str, tally: BoxTally) -> MarkedThing:
    try:
        number, values = int(words[0]), [float(word) for word in words[1:]]
    except ValueError:
        raise DataError(
            f"{where}: {shown(' '.join(words))}; allowed: a number, then shares"
        ) from None
    if not 0 <= number < len(names):
        raise DataError(f"{where}: class {number}; allowed: 0 to {len(names) - 1}")
    if len(values) == 5:  # a detector's confidence stands behind the box
        values = values[:4]
    if len(values) != 4 and (len(values) < 6 or len(values) % 2):
        raise DataError(f"{where}: {len(values)} numbers; allowed: 4, or points of a polygon")
    if max(values) > _BEYOND:
        raise DataError(
            f"{where}: {max(values):g}: beyond 1, so it is in pixels; YOLO has shares of the sides"
        )
    if len(values) == 4:
        x, y, width, height = values
        corners = (x - width / 2, y - height / 2, x + width / 2, y + height / 2)
    else:
        tally.add("drawn as polygons: their bounds are taken", where)
        across, down = values[0::2], values[1::2]
        corners = (min(across), min(down), max(across), max(down))
    return MarkedThing(corners, names[number])
