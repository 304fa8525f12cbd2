"""Boxes in a field of a sample, as Hugging Face's detection sets have them in ``objects``.

A field holds ``{"bbox": [[...], ...], "category": [...]}``, or a list of ``{"bbox", "category"}``;
``iscrowd`` and ``difficult`` may stand beside them. What the four numbers of a box are is written
nowhere, so it is told by all of them together, or by the recipe.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ptft.data.boxes.box import Boxes, BoxTally, clean_boxes, once
from ptft.data.boxes.entry import as_float, check_class
from ptft.errors import DataError, suggest
from ptft.files.bounds import shown

__all__ = [
    "BoxFormat",
    "FieldBoxes",
    "feature_names",
    "number_fields",
    "read_field",
]

BoxFormat = Literal["auto", "xywh", "xyxy", "cxcywh"]

_BOX = ("bbox", "bboxes", "box", "boxes")
_CATEGORY = ("category", "categories", "label", "labels", "category_id", "class", "name")
_CROWD = ("iscrowd", "is_crowd", "crowd")
_DIFFICULT = ("difficult",)
_SLACK = 0.02  # of a picture's side, by which boxes reach beyond it in real sets
_STRAY = 0.01  # share of boxes that may be wrong in the format that is taken


@dataclass(frozen=True)
class FieldBoxes:
    """What a field of a sample marks, as it is written.

    Attributes:
        numbers: float64 (T, 4).
        categories: names, or numbers in a list of names.
        crowd, difficult: bool (T,).
    """

    numbers: NDArray[np.float64]
    categories: list[str | int]
    crowd: list[bool]
    difficult: list[bool]


def read_field(cell: Any, where: str, tally: BoxTally) -> FieldBoxes:
    """Read one field; None is a picture in which nothing is marked.

    Raises:
        DataError: it is no such object, or its lists are not equally long.
    """
    rows = [] if cell is None else _rows(cell, where)
    numbers, categories, crowd, difficult = [], [], [], []
    for number, row in enumerate(rows):
        box = _first(row, _BOX)
        if box is None:
            tally.add("without bbox: left out", where)
            continue
        numbers.append(_four(box, f"{where}: box {number}"))
        categories.append(_category(_first(row, _CATEGORY), f"{where}: box {number}"))
        crowd.append(bool(_first(row, _CROWD)))
        difficult.append(bool(_first(row, _DIFFICULT)))
    return FieldBoxes(np.array(numbers, np.float64).reshape(-1, 4), categories, crowd, difficult)


def _rows(cell: Any, where: str) -> list[Mapping[str, Any]]:
    """One object a box, whichever way they are written."""
    if isinstance(cell, Mapping):
        known = (*_BOX, *_CATEGORY, *_CROWD, *_DIFFICULT)
        told = {key: value for key, value in cell.items() if key in known and value is not None}
        for key, value in told.items():
            if not isinstance(value, list | tuple | np.ndarray):
                raise DataError(f"{where}: {key}: {shown(value)}; allowed: a list, of all boxes")
        lists = {key: list(value) for key, value in told.items()}
        if not any(key in lists for key in _BOX):
            raise DataError(f"{where}: {', '.join(map(str, cell))}; allowed: bbox and category")
        lengths = {key: len(value) for key, value in lists.items()}
        if len(set(lengths.values())) > 1:
            counts = ", ".join(f"{count} {key}" for key, count in lengths.items())
            raise DataError(f"{where}: {counts}; allowed: lists of one length")
        count = next(iter(lengths.values()))
        return [{key: value[row] for key, value in lists.items()} for row in range(count)]
    if isinstance(cell, list | tuple | np.ndarray):
        for row in cell:
            if not isinstance(row, Mapping):
                raise DataError(f"{where}: {shown(row)}; allowed: an object with bbox and category")
        return list(cell)
    raise DataError(f"{where}: {shown(cell)}; allowed: an object with bbox and category")


def _first(row: Mapping[str, Any], keys: Sequence[str]) -> Any:
    return next((row[key] for key in keys if row.get(key) is not None), None)


def _four(box: Any, where: str) -> list[float]:
    values = list(box) if isinstance(box, list | tuple | np.ndarray) else []
    plain = all(isinstance(n, int | float | np.number) and not isinstance(n, bool) for n in values)
    if len(values) != 4 or not plain:
        raise DataError(f"{where}: bbox: {shown(box)}; allowed: four numbers")
    return [as_float(value) for value in values]


def _category(value: Any, where: str) -> str | int:
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, str) and value.strip():
        return check_class(value, f"{where}: category")
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    raise DataError(f"{where}: category: {shown(value)}; allowed: a name, or its number in a list")


def number_fields(
    fields: Sequence[FieldBoxes],
    sizes: Sequence[tuple[int, int] | None],
    named: Sequence[str],
    *,
    box_format: BoxFormat,
    classes: Sequence[str] | None,
    tally: BoxTally,
    key: str,
) -> tuple[list[Boxes], list[str], str]:
    """Boxes of all samples, their classes numbered.

    Args:
        sizes: width and height of each picture, where they are known.
        named: names of the samples.
        box_format: of the four numbers; ``auto``: by all boxes together.
        classes: names in the order of their numbers; None: those that occur, sorted.
        key: where the field stands in the recipe.

    Returns:
        Boxes of each sample, the names of the classes, and how the numbers are read, in words.

    Raises:
        DataError: it cannot be told what the numbers are, or a class is unknown.
    """
    names = list(classes) if classes is not None else _occurring(fields, named, key)
    numbers = {name: number for number, name in reversed(list(enumerate(names)))}
    relative = _relative(fields)
    told = box_format
    if told == "auto":
        told = _told(fields, [(1, 1)] * len(fields) if relative else sizes, relative, key)
    found = []
    for one, size, name in zip(fields, sizes, named, strict=True):
        labels = [_number(category, numbers, f"{key}: {name}") for category in one.categories]
        boxes = Boxes.of(
            _corners(one.numbers, told).astype(np.float32),
            labels,
            crowd=one.crowd,
            difficult=one.difficult,
        )
        boxes = once(replace(boxes, relative=relative, size=size), name, tally)
        found.append(clean_boxes(boxes, (1, 1) if relative else size, name, tally))
    unit = "shares of the picture" if relative else "pixels"
    return found, names, f"boxes are read as {told}, in {unit}"


def _occurring(fields: Sequence[FieldBoxes], named: Sequence[str], key: str) -> list[str]:
    names: set[str] = set()
    for one, name in zip(fields, named, strict=True):
        for category in one.categories:
            if isinstance(category, int):
                raise DataError(
                    f"{key}: {name}: category {category}: a number, and nobody says what it is "
                    "called; allowed: names, or data.classes"
                )
            names.add(category)
    return sorted(names)


def _number(category: str | int, numbers: Mapping[str, int], where: str) -> int:
    if isinstance(category, str):
        if category not in numbers:
            raise DataError(f"{where}: class {category!r}: {suggest(category, list(numbers))}")
        return numbers[category]
    if not 0 <= category < len(numbers):
        raise DataError(f"{where}: category {shown(category)}; allowed: 0 to {len(numbers) - 1}")
    return category


def _relative(fields: Sequence[FieldBoxes]) -> bool:
    """Whether no number of any box is above 1: a box of a pixel is none."""
    largest = [one.numbers[np.isfinite(one.numbers)].max(initial=-np.inf) for one in fields]
    return -np.inf < max(largest, default=-np.inf) <= 1.0


def _corners(numbers: NDArray[np.float64], box_format: str) -> NDArray[np.float64]:
    """Left, top, right, bottom, (T, 4)."""
    if box_format == "xyxy":
        return numbers
    start, size = numbers[:, :2], numbers[:, 2:]
    if box_format == "cxcywh":
        start = start - size / 2
    return np.concatenate([start, start + size], axis=1)


def _told(
    fields: Sequence[FieldBoxes],
    sizes: Sequence[tuple[int, int] | None],
    relative: bool,
    key: str,
) -> Literal["xywh", "xyxy", "cxcywh"]:
    """The only format in which the boxes lie in their pictures, but for a stray one in a hundred.

    Centres are looked for among shares alone: in pixels nobody writes them so.
    """
    wrong: dict[Literal["xywh", "xyxy", "cxcywh"], float] = {}
    formats: tuple[Literal["xywh", "xyxy", "cxcywh"], ...] = ("xywh", "xyxy")
    for told in (*formats, "cxcywh") if relative else formats:
        outside = [
            _outside(_corners(one.numbers, told), size)
            for one, size in zip(fields, sizes, strict=True)
            if len(one.numbers)
        ]
        wrong[told] = float(np.concatenate(outside).mean()) if outside else 0.0
    possible = [told for told, share in wrong.items() if share <= _STRAY]
    if len(possible) == 1 or not any(len(one.numbers) for one in fields):
        return possible[0]
    shares = ", ".join(f"{told} {100 * share:.1f} %" for told, share in wrong.items())
    what = "fit more than one format" if possible else "fit no format"
    raise DataError(
        f"{key}: the numbers of the boxes {what} (without area or outside: {shares}); allowed: "
        "data.box_format"
    )


def _outside(corners: NDArray[np.float64], size: tuple[int, int] | None) -> NDArray[np.bool_]:
    """Which boxes have no area or lie beyond their picture, by more than rounding: bool (T,)."""
    bad = corners[:, 2:] <= corners[:, :2]
    if size is not None:
        sides = np.array([*size, *size], np.float64)
        slack = np.maximum(1.0 if max(size) > 1 else 0.0, _SLACK * sides)
        beyond = (corners < -slack) | (corners > sides + slack)
        bad = np.concatenate([bad, beyond], axis=1)
    found: NDArray[np.bool_] = np.any(bad, axis=1)
    return found


def feature_names(feature: Any) -> list[str] | None:
    """Names that ``datasets`` writes of a ``ClassLabel``, of the feature or of the category in it.

    Args:
        feature: as its JSON has it.
    """
    if isinstance(feature, Mapping):
        names = feature.get("names")
        if isinstance(names, list) and names and all(isinstance(name, str) for name in names):
            return list(names)
        inner = [feature[key] for key in (*_CATEGORY, "feature") if key in feature]
    else:
        inner = list(feature) if isinstance(feature, list) else []
    return next((found for one in inner if (found := feature_names(one)) is not None), None)
