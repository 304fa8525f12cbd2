"""Fields that say which rows belong together: one picture (``picture_id``), one group."""

from collections.abc import Callable, Mapping
from typing import Any

from ptft.data.fields.joining import Groups
from ptft.data.fields.label_values import read_label
from ptft.data.fields.templates import is_there
from ptft.errors import DataError, SampleError, suggest

__all__ = ["other_pictures", "read_ids"]

_LOOKED = 256  # joined rows, whose pictures are held against each other


def read_ids(
    key: str, field: str, count: int, fields: Callable[[int], Mapping[str, Any]]
) -> list[str | None]:
    """A field of every row as a name, in whatever way that is written; None where a row lacks it.

    Raises:
        DataError: no row has it.
    """
    found: list[str | None] = []
    for row in range(count):
        value = fields(row).get(field)
        found.append(_as_name(value) if is_there(value) else None)
    if found and not any(one is not None for one in found):
        near = suggest(field, map(str, fields(0)))
        raise DataError(f"{key}: {field!r}: no sample has that field; {near}")
    return found


def other_pictures(
    field: str, groups: Groups, name: Callable[[int], str], read: Callable[[int], bytes]
) -> list[str]:
    """Tell of joined rows whose picture is another than the first of their sample, which alone is
    read; of as many rows as can be looked at in a moment.

    Args:
        field: of ``data.picture_id``.
        groups: the rows of each sample.
        name: of a row.
        read: its picture. May raise SampleError.
    """
    looked, others = 0, list[str]()
    for index in range(len(groups)):
        own, *more = groups.rows(index)
        for row in more[: _LOOKED - looked]:
            looked += 1
            try:
                if read(row) != read(own):
                    others.append(f"{name(row)}, {name(own)}")
            except SampleError:
                continue  # told where it is read
        if looked >= _LOOKED:
            break
    if not others:
        return []
    return [
        f"data.picture_id: {field!r}: {len(others):,} of {looked:,} joined rows looked at have "
        "another picture than the first of their sample, which alone is read (first: "
        f"{others[0]}); data.group keeps samples together and joins none"
    ]


def _as_name(value: Any) -> str:
    try:
        return str(read_label(value, ""))
    except SampleError:
        return str(value)
