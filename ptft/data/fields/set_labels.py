"""The labels of all rows of a set: one class a row, or several."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ptft.data.fields.classes import load_classes
from ptft.data.fields.label_values import (
    LabelCodes,
    LabelColumn,
    read_labels,
)
from ptft.data.fields.labels import LabelReading, Learn, TextIs, decide
from ptft.data.fields.templates import is_there
from ptft.data.label_sets import LabelSets
from ptft.data.reading.faults import tolerated
from ptft.errors import DataError, SampleError
from ptft.files.bounds import shown
from ptft.recipe.data import FolderData, ShardsData, TableData

__all__ = ["FieldSection", "SetLabels", "read_set_labels"]

FieldSection = ShardsData | FolderData | TableData
"""A data section whose samples have fields."""


_FLAGS = frozenset(("0", "1", "True", "False"))
_SEPARATORS = (";", "|", ",")


@dataclass(frozen=True)
class SetLabels:
    """How the labels of a set are read, and those of its rows.

    Attributes:
        reading: of one class.
        schema: whether the source itself gives names to numbers.
        rows: int64 (R,), the class of each row, or of several the number of its set; -1 for none.
            None where that is not known before rows are read.
        sets: of several a row; None: one a row.
        separator: between several in a text.
        said: what was passed over, a line each.
    """

    reading: LabelReading
    schema: bool
    rows: np.ndarray | None
    sets: LabelSets | None = None
    separator: str | None = None
    said: list[str] = field(default_factory=list)
    numbers: dict[tuple[int, ...], int] = field(default_factory=dict)

    def of(self, value: Any, name: str) -> int | None:
        """The label of a row by its field; None for none. Raises SampleError."""
        if self.sets is None:
            value = told(value, schema=self.schema)
            return self.reading(value, name) if is_there(value) else None
        found = read_labels(value, name, self.separator)
        return None if found is None else self.numbers[_numbered(self.reading, found, name)]

    def words(self, label: int) -> str | list[str]:
        """The name of a class; of several their names."""
        names = self.reading.names
        return names[label] if self.sets is None else [names[one] for one in self.sets[label]]


def told(value: Any, *, schema: bool) -> Any:
    """A label; None for what ``datasets`` writes where a class of its own list is not told."""
    return None if schema and value == -1 else value


def read_set_labels(
    section: FieldSection,
    label_field: str,
    values: Sequence[Any] | LabelCodes | None,
    *,
    text_is: TextIs,
    schema: Sequence[str] | None,
    classes: Sequence[str] | None,
    learn: Learn,
    name: Callable[[int], str],
    first: Callable[[], Mapping[str, Any]],
) -> SetLabels | None:
    """Decide what the labels of a set mean, and number those of all rows.

    Args:
        section: with its list of classes, and whether a row may have several.
        label_field: that holds them.
        values: of all rows; None where that would read everything.
        text_is, schema, learn: see ``decide``.
        classes: to number the labels by where the section has none.
        name: of a row, for messages.
        first: the fields of the first row.

    Returns:
        None where no row has the field, and the section does not name it.

    Raises:
        DataError: a label is none, or is of no class (beyond ``data.max_skipped``); or no
            sample has the field.
    """
    key = f"data.label: {label_field!r}"
    many = section.labels == "many"
    codes = LabelCodes.of(values) if values is not None else None
    if codes is not None and schema is not None and not many:
        codes = codes.without(lambda value: told(value, schema=True) is None)
    column, rows = None, None
    if many:
        if codes is None or text_is == "folder":
            raise DataError(
                f"{key}: data.labels 'many': "
                + (
                    "a folder names one class; allowed: a metadata table"
                    if text_is == "folder"
                    else "they are not known before the samples are read; allowed: a set that lies "
                    "here"
                )
            )
        rows = _Rows(codes, name, key, section.label_separator)
        column = rows.column
    elif codes is not None:
        column = LabelColumn.gather(codes, name, key)
    if column is not None and not column:
        if section.label is None:
            return None
        there = ", ".join(sorted(first())) or "none"
        raise DataError(f"{key}: no sample has that field; the first has: {there}")
    reading = decide(
        column,
        text_is=text_is,
        schema=schema,
        listed=load_classes(section.classes) if section.classes else None,
        given=classes,
        learn=learn,
        key=key,
    )
    if rows is not None:
        return rows.number(reading, section.max_skipped, schema=schema is not None)
    if codes is None:
        return SetLabels(reading, schema is not None, None)
    labels, stranger, count = reading.number(codes, name)
    most = 0.0 if text_is == "folder" else section.max_skipped  # a folder is no slip of the pen
    said = _tolerate(labels, stranger, count, most)
    return SetLabels(reading, schema is not None, labels, said=said)


class _Rows:
    """Several labels a row: the distinct fields, as they are written.

    Attributes:
        column: the distinct labels.

    Raises:
        DataError: a field is no list of labels, or every field is a 0 or 1 for each class.
    """

    def __init__(
        self, codes: LabelCodes, name: Callable[[int], str], key: str, separator: str | None
    ) -> None:
        self.codes, self.name, self.separator = codes, name, separator
        self.lists: list[list[str | int] | None] = []
        self.column = LabelColumn({}, {})
        for value, row in zip(codes.values, codes.firsts, strict=True):
            try:
                found = read_labels(value, name(row), separator)
            except SampleError as error:
                raise DataError(f"{key}: {error}") from None
            self.lists.append(found)
            for label in found or ():
                kind = self.column.texts if isinstance(label, str) else self.column.numbers
                kind.setdefault(label, name(row))  # type: ignore[arg-type]
        self._refuse_flags(key)

    def _refuse_flags(self, key: str) -> None:
        """A 0 or 1 for each class would be read as the classes 0 and 1."""
        lengths = {len(one) for one in self.lists if one is not None}
        if len(lengths) == 1 and min(lengths) > 1 and set(self.column.numbers) <= {0, 1}:
            if self.column.texts and not set(self.column.texts) <= _FLAGS:
                return
            raise DataError(
                f"{key}: every list has {min(lengths)} entries, each 0 or 1 or a boolean "
                f"({self.name(self.codes.firsts[0])}): one for each class; allowed: the names or "
                "the numbers of the classes that are there"
            )

    def _parted_by(self) -> str:
        """Tell where no sample has several classes, and a mark in their names may part them."""
        if any(len(one) > 1 for one in self.lists if one is not None):
            return ""
        for mark in _SEPARATORS:
            named = [text for text in self.column.texts if mark in text]
            if named:
                return (
                    f"no sample has several classes, and {len(named):,} are called such as "
                    f"{shown(named[0])}; if {mark!r} parts them: data.label_separator: {mark!r}"
                )
        return ""

    def number(self, reading: LabelReading, max_skipped: float, *, schema: bool) -> SetLabels:
        """Number the sets of all rows, in the order in which they come."""
        numbers: dict[tuple[int, ...], int] = {}
        table = np.full(len(self.lists) + 1, -1, np.int64)
        strangers = np.zeros(len(table), bool)
        first: SampleError | None = None
        for place, (found, row) in enumerate(zip(self.lists, self.codes.firsts, strict=True)):
            if found is None:
                continue
            try:
                own = _numbered(reading, found, self.name(row))
            except SampleError as error:
                first, strangers[place] = first or error, True
                continue
            table[place] = numbers.setdefault(own, len(numbers))
        labels = table[self.codes.codes]
        said = _tolerate(labels, first, int(strangers[self.codes.codes].sum()), max_skipped)
        sets = LabelSets.of(numbers, len(reading.names))
        bare = numbers.get(())
        without = 0 if bare is None else int((labels == bare).sum())
        untold = int((labels < 0).sum())
        if without:
            said.append(f"{without:,} of {len(labels):,} samples are of no class: learned as such")
        if near := self._parted_by():
            said.append(near)
        if untold:
            said.append(f"{untold:,} of {len(labels):,} samples do not say their classes")
        return SetLabels(reading, schema, labels, sets, self.separator, said, numbers)


def _numbered(reading: LabelReading, found: Sequence[str | int], name: str) -> tuple[int, ...]:
    """The classes of a list of labels, ascending, each once."""
    numbers = (reading(label, name) for label in found)
    return tuple(sorted({number for number in numbers if number is not None}))


def _tolerate(
    labels: np.ndarray, stranger: SampleError | None, count: int, max_skipped: float
) -> list[str]:
    """What is said of labels that are of no class. Raises DataError where there are too many."""
    if stranger is None:
        return []
    so_many = f"so are the labels of {count:,} of {len(labels):,} samples"
    if count > tolerated(max_skipped, len(labels)) or not (labels >= 0).any():
        raise DataError(f"{stranger}; {so_many}")
    return [f"without a class: {stranger}; {so_many}"]
