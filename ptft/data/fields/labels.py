"""What a label means, decided in one place for every source.

A folder's name or a text is the name of a class. A whole number is a place in the names that the
source itself gives (``ClassLabel``, ``data.classes``), else in those of the model or training set
that it is read beside; where nobody gave names, the number is the name. Files without types (the
``cls`` of a shard, a cell of a CSV) write numbers as texts: a column that holds nothing but whole
numbers is one of numbers, unless the names are such numbers themselves. What is neither a name nor
a whole number is no label.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np

from ptft.data.fields.label_values import (
    SHOWN,
    LabelCodes,
    LabelColumn,
    is_number,
    natural_classes,
    read_label,
    to_number,
)
from ptft.data.fields.templates import clean_text
from ptft.errors import DataError, SampleError, suggest

__all__ = ["LabelReading", "Learn", "TextIs", "decide"]

TextIs = Literal["folder", "typed", "untyped"]
"""Where texts come from: names of folders; a source that tells texts from numbers (JSON, parquet);
one that cannot (CSV, ``cls``)."""

Learn = Callable[[], "LabelReading | None"]
"""Reads the labels of a section's training set; None where it has none."""


@dataclass(frozen=True)
class LabelReading:
    """How the labels of a set are read.

    Attributes:
        names: the classes in the order of their numbers.
        places: the names that whole numbers are places in; None: a number is itself a name.
        digits: texts of digits are numbers.
        said: how it was decided, in words.
    """

    names: tuple[str, ...]
    places: tuple[str, ...] | None
    digits: bool
    said: str

    def __call__(self, value: Any, sample: str) -> int | None:
        """The number of a label's class, None for no label.

        Raises:
            SampleError: there is no such class; names the sample, the label and the near misses.
        """
        label = read_label(value, sample)
        if label is None:
            return None
        if self.digits and isinstance(label, str) and is_number(label):
            label = to_number(label)
        if isinstance(label, int):
            if self.places is None:
                name = str(label)
            elif 0 <= label < len(self.places):
                name = self.places[label]
            else:
                raise SampleError(
                    f"{sample}: label {label} is not among the classes; allowed: 0 to "
                    f"{len(self.places) - 1}, or a class name",
                    "mislabelled",
                )
        else:
            name = label
        number = self._numbers.get(name)
        if number is None:
            shown = f"{label!r}" if name == label else f"{label} ({name!r})"
            raise SampleError(
                f"{sample}: label {shown[:SHOWN]} is not among the classes; "
                f"{suggest(name, self.names)}",
                "mislabelled",
            )
        return number

    def number(
        self, column: LabelCodes, name: Callable[[int], str]
    ) -> tuple[np.ndarray, SampleError | None, int]:
        """Numbers of the classes of all rows, int64 (R,), -1 for none; and the error of the first
        row whose label is of no class, with the number of such rows.

        Args:
            name: of a row, for messages.
        """
        table = np.full(len(column.values) + 1, -1, np.int64)
        first: SampleError | None = None
        strangers = np.zeros(len(column.values) + 1, bool)
        for place, (value, row) in enumerate(zip(column.values, column.firsts, strict=True)):
            try:
                label = self(value, name(row))
            except SampleError as error:
                first = first or error
                strangers[place] = True
                continue
            table[place] = -1 if label is None else label
        count = int(strangers[column.codes].sum()) if first is not None else 0
        return table[column.codes], first, count

    @cached_property
    def _numbers(self) -> dict[str, int]:
        return {name: number for number, name in enumerate(self.names)}


def decide(
    column: LabelColumn | None,
    *,
    text_is: TextIs,
    schema: Sequence[str] | None,
    listed: Sequence[str] | None,
    given: Sequence[str] | None,
    learn: Learn,
    key: str,
) -> LabelReading:
    """Decide what the labels of a set mean.

    Args:
        column: its labels; None where they are not known before the samples are read.
        text_is: where texts come from.
        schema: names that the source itself gives to numbers.
        listed: the names in ``data.classes``.
        given: names to number by where there is no list, such as a trained model's.
        learn: what the training split of the same section has, if it has another; asked only where
            it matters.
        key: of the recipe, with the field's name.

    Raises:
        DataError: the column mixes names and numbers that nobody gave names to, a number could be
            a name or a place and the two differ, or a stream gives no names.
    """
    schema = None if schema is None else [clean_text(name) for name in schema]
    own = _own_names(column, schema, listed, key)
    if own is not None:
        names = listed or given or _learned_names(learn) or own[0]
        digits = _digits(column, text_is, own[0])
        return LabelReading(tuple(names), tuple(own[0]), digits, own[1])
    if column is None:
        found = given or _learned_names(learn)
        if found is None:
            raise DataError(
                "data.classes: missing; they cannot be gathered from a set that is streamed"
            )
        return LabelReading(tuple(found), tuple(found), text_is == "untyped", _BESIDE)
    numbers = set(column.numbers)
    digits = column.all_digits and (text_is == "untyped" or bool(numbers))
    if digits and not numbers:
        learned = learn()
        digits = learned is None or learned.said != _NAMES  # as its own training set is read
    if digits:
        numbers |= {to_number(text) for text in column.texts}
    elif numbers and column.texts:
        raise _mixed(column, key)
    if text_is == "untyped" and (found := column.fraction) is not None:
        _refuse_fraction(*found, given, learn(), key)
    if not numbers:
        names = given or _learned_names(learn) or natural_classes(column.texts)
        return LabelReading(tuple(names), None, False, _NAMES)
    return _by_number(sorted(numbers), digits, given, learn(), key)


_BESIDE = "whole numbers are places in the names that the model or the training set has"
_NUMBERS = "whole numbers, which are names themselves: nobody gave others"
_NAMES = "names"


def _own_names(
    column: LabelColumn | None,
    schema: list[str] | None,
    listed: Sequence[str] | None,
    key: str,
) -> tuple[list[str], str] | None:
    """The names that the numbers of a source are places in, by itself or ``data.classes``."""
    if schema is None:
        return None if listed is None else (list(listed), "names, or places in data.classes")
    said = "whole numbers are places in the table's own names"
    if listed is None or set(schema) <= set(listed):
        return schema, said
    if len(schema) == len(listed) and not set(schema) & set(listed):
        return list(listed), f"{said}, which data.classes renames in their order"
    used = schema if column is None else [schema[n] for n in column.numbers if n < len(schema)]
    if set(used) <= set(listed):
        return schema, said
    strange = next(name for name in used if name not in set(listed))
    raise DataError(
        f"{key}: the table's own names have {strange!r}, which data.classes lacks; allowed: all "
        f"that occur, or as many new names ({len(schema)}) in the table's order"
    )


def _digits(column: LabelColumn | None, text_is: TextIs, own: Sequence[str]) -> bool:
    """Whether texts of digits are places in the own names of a source."""
    if text_is != "untyped":
        return False
    return column is None or (column.all_digits and not set(column.texts) & set(own))


def _learned_names(learn: Learn) -> tuple[str, ...] | None:
    learned = learn()
    return None if learned is None else learned.names


def _by_number(
    numbers: list[int],
    digits: bool,
    given: Sequence[str] | None,
    learned: LabelReading | None,
    key: str,
) -> LabelReading:
    """The reading of numbers that neither the source nor ``data.classes`` gives names to."""
    names = given or (learned.names if learned is not None else None)
    if names is None:
        return LabelReading(tuple(map(str, numbers)), None, digits, _NUMBERS)
    themselves = LabelReading(tuple(names), None, digits, _NUMBERS)
    if learned is not None:
        if learned.said == _NUMBERS:
            return themselves
        if learned.places is not None:
            return LabelReading(tuple(names), learned.places, digits, _BESIDE)
    fit = all(0 <= number < len(names) for number in numbers)
    if not {str(number) for number in numbers} <= set(names):
        return LabelReading(tuple(names), tuple(names), digits, _BESIDE)
    if not fit or all(names[number] == str(number) for number in numbers):
        return themselves
    number = next(number for number in numbers if names[number] != str(number))
    raise DataError(
        f"{key}: the number {number} may be the class named {str(number)!r} or class number "
        f"{number} ({names[number]!r}); data.classes says which: the names in the order of this "
        "set's numbers"
    )


def _refuse_fraction(
    text: str,
    sample: str,
    given: Sequence[str] | None,
    learned: LabelReading | None,
    key: str,
) -> None:
    """Raises DataError: a column of numbers has a fraction, which nobody knows as a name."""
    if text in set(given or ()) or (learned is not None and text in set(learned.names)):
        return
    raise DataError(
        f"{key}: {sample}: label {text[:SHOWN]} is a fraction, and all others are numbers; "
        "allowed: one name or one whole number a sample; or data.classes, if these are names"
    )


def _mixed(column: LabelColumn, key: str) -> DataError:
    number, first = next(iter(column.numbers.items()))
    text, other = next((text, name) for text, name in column.texts.items() if not is_number(text))
    return DataError(
        f"{key}: both numbers and names: {number} ({first}) and {text[:SHOWN]!r} ({other}); "
        "allowed: one of the two; or data.classes, which gives names to numbers"
    )
