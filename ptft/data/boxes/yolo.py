"""YOLO's text files: a line a box, class and shares of the picture's sides.

A split is a ``data.yaml`` (whose key of the split's name says where the pictures are), a folder of
pictures, a folder with ``images`` and ``labels`` in it, or a text file that lists pictures. The
labels of ``images/a/b.jpg`` are ``labels/a/b.txt``; a picture without such a file shows nothing.

What a ``data.yaml`` or a list names lies in its own folder, or in the one that the recipe names
(``data.images``): a stranger's file is no list of pictures of this machine.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from ptft.data.boxes.box import BoxTally
from ptft.data.boxes.entry import Annotated, Entry, MarkedThing, check_class, read_words
from ptft.data.listing import list_pictures
from ptft.errors import DataError
from ptft.files.bounds import check_inside, shown
from ptft.files.picture_names import is_picture
from ptft.recipe.yaml_text import read_yaml

__all__ = ["read_yolo"]

_MAX_LABELS = 4 << 20
_MAX_LIST = 256 << 20
_BEYOND = 1.05  # shares above it are pixels, or nonsense; up to it they are rounding


def read_yolo(
    path: Path, images: Path | None, split: str, classes: Sequence[str] | None
) -> Annotated:
    """Read a split.

    Args:
        images: the folder that ``data.yaml``'s paths count from, whatever its ``path`` says; None:
            its own.
        split: the key in ``data.yaml``.
        classes: names in the order of their numbers, where ``data.yaml`` has none.

    Raises:
        DataError: a file is absent or damaged, names what lies elsewhere, or nobody names the
            classes.
    """
    root = images or path.parent
    names = list(classes) if classes else None
    pictures: list[Path] = []
    if path.suffix.lower() in (".yaml", ".yml"):
        values = _read_yaml(path)
        if not isinstance(values, dict):
            raise DataError(f"{path}: {shown(values)}; allowed: keys {split} and names")
        names = names or _names(values, path)
        for place in _places(values, split, path, images):
            pictures += _pictures(place, root)
    else:
        pictures = _pictures(path, root)
    if names is None:
        raise DataError(f"{path}: the classes have numbers; data.classes has to name them")
    tally = BoxTally()
    entries = tuple(_entry(picture, names, tally) for picture in pictures)
    if not entries:
        raise DataError(f"{path}: no picture there")
    return Annotated(entries, tuple(names), tally)


def _read_yaml(path: Path) -> Any:
    try:
        return read_yaml(read_words(path, limit=_MAX_LABELS))
    except yaml.YAMLError as error:
        raise DataError(f"{path}: not YAML: {' '.join(str(error).split())}") from None


def _places(values: dict[str, Any], split: str, path: Path, images: Path | None) -> list[Path]:
    given = values.get(split, values.get("valid") if split == "val" else None)
    listed = [place for place in (given if isinstance(given, list) else [given]) if place]
    if not listed or not all(isinstance(place, str) for place in listed):
        raise DataError(f"{path}: {split}: {shown(given)}; allowed: a path, or a list of them")
    named = values.get("path")
    root = images or path.parent
    base = root / named if isinstance(named, str) and images is None else root
    places = []
    for place in listed:
        tried = [base / place, root / place, root / place.removeprefix("../")]
        found = next((one for one in tried if _is_within(one, root) and _exists(one)), None)
        if found is None:
            raise DataError(
                f"{path}: {split}: {shown(place)}: no such folder or file in {root}; allowed: a "
                "place in it, or data.images with the folder that the paths count from"
            )
        places.append(found)
    return places


def _is_within(place: Path, root: Path) -> bool:
    """Whether a path does not lead out of a folder; links are followed, as in folders."""
    plain = Path(os.path.normpath(place.absolute()))
    return plain.is_relative_to(os.path.normpath(root.absolute()))


def _exists(place: Path) -> bool:
    try:
        return place.exists()
    except OSError:  # a name that no file can have
        return False


def _names(values: dict[str, Any], path: Path) -> list[str] | None:
    given, count = values.get("names"), values.get("nc")
    if isinstance(given, dict):
        if set(given) != set(range(len(given))):
            raise DataError(f"{path}: names: {shown(list(given))}; allowed: 0, 1, 2, ...")
        given = [given[number] for number in range(len(given))]
    if given is None:
        return None
    if not isinstance(given, list):
        raise DataError(f"{path}: names: {shown(given)}; allowed: a list of names")
    names = [check_class(name, f"{path}: names.{number}") for number, name in enumerate(given)]
    if len(set(names)) != len(names):
        raise DataError(f"{path}: names: one comes twice")
    if isinstance(count, int) and count != len(names):
        raise DataError(f"{path}: nc: {shown(count)}, and names has {len(names)}; allowed: one")
    return names


def _pictures(place: Path, root: Path) -> list[Path]:
    if place.is_dir():
        folder = place / "images" if (place / "images").is_dir() else place
        return [folder / name for name in list_pictures(folder).pictures]
    text = read_words(place, limit=_MAX_LIST)
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    for line in lines:
        if not is_picture(line):
            raise DataError(f"{place}: {shown(line)}; allowed: a path of a picture a line")
        if not _is_within(place.parent / line, root):
            raise DataError(
                f"{place}: {shown(line)} leads out of {root}; allowed: a picture in it, or "
                "data.images with the folder that all are in"
            )
        check_inside(Path(line).name, f"{place}:", error=DataError)
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
        text = read_words(file, limit=_MAX_LABELS)
        for number, line in enumerate(text.splitlines(), 1):
            if line.strip():
                things.append(_thing(line.split(), names, f"{file}: line {number}", tally))
    return Entry(picture.name, picture, tuple(things), relative=True)


def _thing(words: list[str], names: Sequence[str], where: str, tally: BoxTally) -> MarkedThing:
    try:
        number, values = _whole(words[0]), [float(word) for word in words[1:]]
    except (ValueError, OverflowError):
        raise DataError(
            f"{where}: {shown(' '.join(words))}; allowed: a number, then shares"
        ) from None
    if not 0 <= number < len(names):
        raise DataError(f"{where}: class {shown(number)}; allowed: 0 to {len(names) - 1}")
    if len(values) == 5:
        tally.add("with a detector's score behind them: taken as marked by people", where)
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


def _whole(word: str) -> int:
    """A class's number; who writes class and shares as one table has 1.0."""
    try:
        return int(word)
    except ValueError:
        if not float(word).is_integer():
            raise
        return int(float(word))
