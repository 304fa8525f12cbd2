"""One label: a name, a whole number, or nothing; and the distinct ones of a set."""

import ast
import json
import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import numpy as np

from ptft.data.fields.templates import clean_text
from ptft.data.kept import read_texts, texts
from ptft.errors import DataError, SampleError

__all__ = [
    "SHOWN",
    "Label",
    "LabelCodes",
    "LabelColumn",
    "is_number",
    "natural_classes",
    "read_label",
    "read_labels",
    "to_number",
]

Label = str | int

SHOWN = 80
"""Characters of a label in a message."""

_FLOAT = re.compile(r"[+-]?(\d{1,40}\.?\d{0,40}|\.\d{1,40})(e[+-]?\d{1,3})?", re.IGNORECASE)
_MOST_DIGITS = 40  # of a number that somebody wrote
_ALLOWED = "allowed: one name or one whole number a sample"


@dataclass(frozen=True)
class LabelCodes:
    """The label field of all rows: each value once, and of each row its number among them.

    Attributes:
        values: in the order of their first rows; those of other types than text and whole number
            are not held against each other.
        firsts: the first row of each.
        codes: int32 (R,), -1 for none.
    """

    values: list[Any]
    firsts: list[int]
    codes: np.ndarray

    @classmethod
    def of(cls, values: "Iterable[Any] | LabelCodes") -> "LabelCodes":
        """Number the values of all rows, where that is not done yet."""
        if isinstance(values, LabelCodes):
            return values
        numbers = _Numbers()
        codes = np.fromiter((numbers.add(row, value) for row, value in enumerate(values)), np.int32)
        return cls(numbers.values, numbers.firsts, codes)

    @classmethod
    def joined(cls, pieces: Iterable["LabelCodes"]) -> "LabelCodes":
        """The labels of pieces of a set, one after the other."""
        numbers, rows = _Numbers(), 0
        codes = []
        for piece in pieces:
            found = [
                numbers.add(rows + first, value)
                for value, first in zip(piece.values, piece.firsts, strict=True)
            ]
            codes.append(np.array([*found, -1], np.int32)[piece.codes])
            rows += len(piece.codes)
        every = np.concatenate(codes) if codes else np.empty(0, np.int32)
        return cls(numbers.values, numbers.firsts, every)

    @classmethod
    def numbered(cls, values: list[Any], codes: np.ndarray) -> "LabelCodes":
        """Of values in any order, not all of which need occur; ``codes`` are their numbers."""
        there = np.flatnonzero(codes >= 0)
        used, firsts = np.unique(codes[there], return_index=True)
        order = np.argsort(firsts)
        table = np.full(len(values) + 1, -1, np.int32)
        table[used[order]] = np.arange(len(used))
        kept = [values[number] for number in used[order].tolist()]
        return cls(kept, there[firsts[order]].tolist(), table[codes])

    @classmethod
    def coded(cls, values: list[Any], codes: np.ndarray) -> "LabelCodes":
        """Of values that are numbered already, in the order of their first rows."""
        firsts = np.zeros(len(values), np.int64)
        firsts[codes[::-1]] = np.arange(len(codes))[::-1]
        return cls(values, firsts.tolist(), codes)

    def arrays(self) -> dict[str, np.ndarray]:
        """The same as arrays, to be kept; the values are those of a JSON."""
        return {"codes": self.codes, **texts(values=self.values, firsts=self.firsts)}

    @classmethod
    def of_arrays(cls, found: Mapping[str, np.ndarray]) -> "LabelCodes":
        """What ``arrays`` gave."""
        return cls(read_texts(found, "values"), read_texts(found, "firsts"), found["codes"])

    def replaced(self, values: Mapping[int, Any]) -> "LabelCodes":
        """The same, with other values in some rows."""
        known = [*self.values, None]
        rows = enumerate(self.codes.tolist())
        return LabelCodes.of(values.get(row, known[code]) for row, code in rows)

    def without(self, absent: Callable[[Any], bool]) -> "LabelCodes":
        """The same, with none where ``absent`` says so of a value."""
        kept = [n for n, value in enumerate(self.values) if not absent(value)]
        table = np.full(len(self.values) + 1, -1, np.int32)
        table[kept] = np.arange(len(kept))
        return LabelCodes(
            [self.values[n] for n in kept], [self.firsts[n] for n in kept], table[self.codes]
        )


class _Numbers:
    """Numbers of values, in the order in which they come."""

    def __init__(self) -> None:
        self.values: list[Any] = []
        self.firsts: list[int] = []
        self._known: dict[tuple[type, Any], int] = {}  # True == 1, but is another label

    def add(self, row: int, value: Any) -> int:
        if value is None:
            return -1
        plain = isinstance(value, str | int)
        number = self._known.get((type(value), value)) if plain else None
        if number is None:
            number = len(self.values)
            self.values.append(value)
            self.firsts.append(row)
            if plain:
                self._known[type(value), value] = number
        return number


@dataclass(frozen=True)
class LabelColumn:
    """The distinct labels of a set.

    Attributes:
        texts, numbers: each with the name of the first sample that has it.
    """

    texts: dict[str, str]
    numbers: dict[int, str]

    @classmethod
    def gather(cls, column: LabelCodes, name: Callable[[int], str], key: str) -> "LabelColumn":
        """Read all labels of a set.

        Args:
            column: of all rows.
            name: of a row, for messages.
            key: of the recipe, with the field's name.

        Raises:
            DataError: one is neither a name nor a whole number; row and value are named.
        """
        read = cls({}, {})
        for value, row in zip(column.values, column.firsts, strict=True):
            try:
                label = read_label(value, name(row))
            except SampleError as error:
                raise DataError(f"{key}: {error}") from None
            if isinstance(label, str):
                read.texts.setdefault(label, name(row))
            elif label is not None:
                read.numbers.setdefault(label, name(row))
        return read

    def __bool__(self) -> bool:
        return bool(self.texts or self.numbers)

    @property
    def fraction(self) -> tuple[str, str] | None:
        """A text that writes a fraction and the sample that has it, where all write numbers."""
        if not self.texts or not all(map(_FLOAT.fullmatch, self.texts)):
            return None
        parts = (one for one in self.texts.items() if not is_number(one[0]) and "." in one[0])
        return next(parts, None)

    @property
    def all_digits(self) -> bool:
        """Whether there are texts, and all of them write whole numbers."""
        return bool(self.texts) and all(map(is_number, self.texts))


def read_label(value: Any, sample: str) -> Label | None:
    """A label as a name (NFC, without byte-order mark, stripped) or a whole number; None for none.

    ``b"cat"`` is a name where it is UTF-8, ``True`` is the name "True", and 3.0 is 3: a column of
    numbers with gaps is stored as floats.

    Raises:
        SampleError: it is neither; names the sample and the value.
    """
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or value is False or value is True:
        return None if value is None else str(value)
    if isinstance(value, bytes | bytearray | memoryview):
        try:
            value = bytes(value).decode("utf-8")
        except UnicodeDecodeError:
            raise _no_label(sample, bytes(value), "bytes that are not UTF-8") from None
    if isinstance(value, str):
        text = clean_text(value)
        if _is_list(text):
            raise _no_label(sample, text, "a list or an object, written as a text")
        if len(text.splitlines()) > 1:
            raise _no_label(sample, text, "several lines, a list")
        return text or None
    if isinstance(value, int):
        return value
    if isinstance(value, float | Decimal):
        if math.isnan(value):
            return None
        if not math.isfinite(value) or value != int(value):
            raise _no_label(sample, value, "a fraction")
        return int(value)
    kind = {"list": "a list", "tuple": "a list", "ndarray": "a list", "dict": "an object"}
    raise _no_label(sample, value, kind.get(type(value).__name__, type(value).__name__))


def read_labels(value: Any, sample: str, separator: str | None) -> list[Label] | None:
    """Several labels of a sample: a list, such a list written as a text, or a text with a
    ``separator`` between them; one by itself is one, and an empty text or list is none of the
    classes. None where nothing is told (null, NaN).

    Raises:
        SampleError: a label is neither a name nor a whole number; names the sample and the value.
    """
    if isinstance(value, bytes | bytearray | memoryview):
        value = read_label(value, sample)
        value = "" if value is None else value
    if isinstance(value, str):
        text = clean_text(value)
        if _is_list(text):
            value = _parse(text)
        elif separator is not None:
            value = text.split(separator)
        else:
            value = [text]
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, list | tuple | set | frozenset):
        read = (read_label(entry, sample) for entry in value)
        return [label for label in read if label is not None]
    label = read_label(value, sample)
    return None if label is None else [label]


def _no_label(sample: str, value: Any, what: str) -> SampleError:
    several = " (several classes a picture: data.labels: many)" if "list" in what else ""
    shown = str(value) if isinstance(value, str) else repr(value)
    return SampleError(
        f"{sample}: label {shown[:SHOWN]} is {what}; {_ALLOWED}{several}", "mislabelled"
    )


def _is_list(text: str) -> bool:
    """Whether a text is a list or an object in JSON's or Python's spelling."""
    return isinstance(_parse(text), list | dict | tuple | set)


def _parse(text: str) -> Any:
    """What a text in brackets holds; None where that is neither JSON nor Python."""
    if (text[:1], text[-1:]) not in (("[", "]"), ("{", "}"), ("(", ")")):
        return None
    for parse in (json.loads, ast.literal_eval):
        try:
            return parse(text)
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            continue
    return None


def is_number(text: str) -> bool:
    """Whether a text writes a whole number as one would: "3", "-1" or "3.0", but not "03"."""
    whole, dot, rest = text.partition(".")
    if dot and rest.strip("0"):
        return False
    digits = whole.removeprefix("-")
    if len(digits) > _MOST_DIGITS:
        return False
    return digits.isascii() and digits.isdecimal() and (digits == "0" or digits[0] != "0")


def to_number(text: str) -> int:
    """The number that a text writes."""
    return int(text.partition(".")[0])


def natural_classes(texts: Iterable[str]) -> list[str]:
    """Distinct names, sorted; whole numbers by their value."""
    distinct = set(texts)
    if all(map(is_number, distinct)):
        return sorted(distinct, key=lambda text: (to_number(text), text))
    return sorted(distinct)
