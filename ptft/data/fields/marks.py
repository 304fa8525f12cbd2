"""What a field of each sample marks in its picture, of a whole set."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ptft.data.boxes.box import Boxes, BoxTally, count_boxes
from ptft.data.boxes.objects import FieldBoxes, number_fields, read_field
from ptft.data.fields.classes import load_classes
from ptft.errors import DataError, SampleError
from ptft.preprocess.picture_header import read_header
from ptft.recipe.data import FolderData, ShardsData, TableData

__all__ = ["SIZE", "Marks", "read_marks"]

SIZE = ("width", "height")
"""Fields that say how large a picture is, beside its boxes."""

_LOOKED = 64  # pictures whose files are asked for their size, where no field says it


@dataclass(frozen=True)
class Marks:
    """The boxes of a set.

    Attributes:
        boxes: of each row.
        classes: names of what they mark.
        said: what there is, and what was passed over, a line each.
    """

    boxes: list[Boxes]
    classes: list[str]
    said: list[str]


def read_marks(
    section: ShardsData | FolderData | TableData,
    schema: Sequence[str] | None,
    given: Sequence[str] | None,
    count: int,
    name: Callable[[int], str],
    fields: Callable[[int], Mapping[str, Any]],
    picture: Callable[[int], bytes],
) -> Marks:
    """Read the boxes of all rows of a set.

    Args:
        section: names the field (``boxes``), what its numbers are, and perhaps the classes.
        schema: names that the source itself gives to the numbers of categories.
        given: names of the classes where neither the section nor the source has any.
        count: of rows.
        name, fields, picture: of a row by its number; of the latter two SampleError where the row
            is broken, which reading the sample says.

    Raises:
        DataError: no row has the field, one holds something else, what its numbers are cannot be
            told, or a class is unknown.
    """
    field = section.boxes or ""
    key = f"data.boxes: {field!r}"
    tally = BoxTally()
    names = [name(row) for row in range(count)]
    marked: list[FieldBoxes] = []
    sizes: list[tuple[int, int] | None] = []
    known = False
    for row in range(count):
        try:
            values = fields(row)
        except SampleError:
            values = {}
        cell = values.get(field)
        known = known or cell is not None
        marked.append(_named(read_field(cell, f"{key}: {names[row]}", tally), schema, names[row]))
        sizes.append(_size(values))
    if not known:
        raise DataError(
            f"{key}: no sample has that field; the first has: "
            f"{', '.join(sorted(fields(0))) or 'none'}"
        )
    listed = load_classes(section.classes) if section.classes is not None else None
    boxes, classes, told = number_fields(
        marked,
        sizes if any(sizes) else _looked_up(marked, picture),
        names,
        box_format=section.box_format,
        classes=listed or given or schema,
        tally=tally,
        key=key,
    )
    if not any(sizes):  # what a file says of its size is of how it is stored, and is known again
        boxes = [replace(one, size=None) for one in boxes]
    return Marks(boxes, classes, [*tally.notes(), count_boxes(boxes, classes), told])


def _named(one: FieldBoxes, schema: Sequence[str] | None, where: str) -> FieldBoxes:
    """Categories by the names that the source gives to their numbers."""
    if schema is None:
        return one
    for category in one.categories:
        if isinstance(category, int) and not 0 <= category < len(schema):
            raise DataError(f"{where}: category {category}; allowed: 0 to {len(schema) - 1}")
    names = [schema[c] if isinstance(c, int) else c for c in one.categories]
    return replace(one, categories=list(names))


def _size(values: Mapping[str, Any]) -> tuple[int, int] | None:
    width, height = (values.get(side) for side in SIZE)
    if isinstance(width, int) and isinstance(height, int) and width > 1 and height > 1:
        return width, height
    return None


def _looked_up(
    marked: Sequence[FieldBoxes], picture: Callable[[int], bytes]
) -> list[tuple[int, int] | None]:
    """Sizes of the first pictures with boxes, by their files; None of the others."""
    sizes: list[tuple[int, int] | None] = [None] * len(marked)
    rows = [row for row, one in enumerate(marked) if len(one.numbers)]
    for row in rows[:_LOOKED]:
        try:
            header = read_header(picture(row))
        except SampleError:
            continue
        if header is not None and min(header.size) > 1:
            sizes[row] = header.size
    return sizes
