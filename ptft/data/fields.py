"""What the fields of a sample mean: its captions and its class.

A field is a value with a name: a text file beside a picture, a key of its JSON, a column of a
table. Captions are templates over fields; a label is a field that names a class or its number.
"""

import json
from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from string import Formatter
from typing import Any

import numpy as np

from ptft.data.decode import Encoded
from ptft.data.faults import tolerated
from ptft.data.hashing import digest_of
from ptft.data.sample import Sample, SampleSet
from ptft.errors import DataError, RecipeError, SampleError, suggest
from ptft.recipe.data import INDIFFERENT, FolderData, ShardsData, TableData

__all__ = [
    "ClassNumbers",
    "FieldSection",
    "FieldSet",
    "Templates",
    "load_classes",
    "natural_classes",
    "plain_field",
]

FieldSection = ShardsData | FolderData | TableData
"""A data section whose samples have fields."""

_NO_MEANING = {"train", "val", "test", "limit", "resample", *INDIFFERENT}  # of a sample's fields
_LISTS = (list, tuple, np.ndarray)
_SHOWN = 80  # characters of a value in a message


class Templates:
    """Caption templates such as ``"{name}, {keywords}"``.

    Args:
        templates: plain fields in braces; doubled braces are braces.
        lenient: an absent field is no error where the sample has a label.
    """

    def __init__(self, templates: Sequence[str], lenient: bool) -> None:
        self.lenient = lenient
        self._parsed = [
            (template, [(literal, name) for literal, name, _, _ in Formatter().parse(template)])
            for template in templates
        ]

    @property
    def fields(self) -> set[str]:
        """Names of the fields that the templates read."""
        return {name for _, parts in self._parsed for _, name in parts if name is not None}

    def fill(self, fields: Mapping[str, Any], name: str, labelled: bool) -> tuple[str, ...]:
        """The captions of a sample.

        Args:
            fields: its fields; None and blank texts count as absent.
            name: of the sample, for the message.
            labelled: it has a class, so that it may do without a caption.

        Raises:
            SampleError: a field is absent, or is no text, number or list of these.
        """
        captions: list[str] = []
        for template, parts in self._parsed:
            try:
                captions += _fill(parts, fields)
            except KeyError as error:
                if labelled and self.lenient:
                    continue
                raise SampleError(
                    f"{name}: no field {error.args[0]!r} for the caption {template!r}; "
                    f"{_fields_there(fields)}",
                    "empty",
                ) from None
            except TypeError as error:
                raise SampleError(f"{name}: caption {template!r}: {error}") from None
        if not captions and not (labelled and self.lenient):
            raise SampleError(
                f"{name}: its captions are empty lists; {_fields_there(fields)}", "empty"
            )
        return tuple(dict.fromkeys(captions))


class ClassNumbers:
    """Labels -> numbers of classes.

    Args:
        names: in the order of their numbers.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self.names = list(names)
        self._numbers = {name: number for number, name in enumerate(names)}

    def __call__(self, label: Any, sample: str) -> int:
        """The number of the class that ``label`` names, or gives as a number.

        Raises:
            SampleError: there is no such class; names the sample, the label and the near misses.
        """
        text = _label_text(label)
        number = self._numbers.get(text)
        if number is None and text.isdecimal():
            number = int(text)
        if number is None or number >= len(self.names):
            allowed = suggest(text, self.names)
            if text.lstrip("-").isdecimal():
                allowed = f"allowed: 0 to {len(self.names) - 1}, or a class name"
            raise SampleError(
                f"{sample}: label {text[:_SHOWN]!r} is not in data.classes; {allowed}",
                "mislabelled",
            )
        return number


def natural_classes(labels: Iterable[Any]) -> list[str]:
    """The distinct labels as names, sorted; whole numbers by their value."""
    distinct = {_label_text(label) for label in labels if _is_there(label)}
    if all(text.lstrip("-").isdecimal() for text in distinct):
        return sorted(distinct, key=int)
    return sorted(distinct)


def load_classes(given: str | Sequence[str]) -> list[str]:
    """Class names from ``data.classes``: a list, a text file, or a JSON file.

    Raises:
        RecipeError: the file is absent or of another form, or a name is blank or comes twice.
    """
    key = f"data.classes: {given!r}" if isinstance(given, str) else "data.classes"
    names: list[Any] = list(given) if not isinstance(given, str) else _read_classes(given, key)
    for number, name in enumerate(names):
        if not isinstance(name, str) or not name.strip():
            raise RecipeError(f"{key}: class {number} is {name!r}; allowed: a name")
    names = [name.strip() for name in names]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice or not names:
        what = f"{twice[0]!r} comes twice" if twice else "it is empty"
        raise RecipeError(f"{key}: {what}; allowed: one name a class, all different")
    return names


class FieldSet(SampleSet):
    """A sample set whose captions and classes come from fields, for kinds to fill in.

    A kind sets itself up, then calls ``_resolve_classes``.

    Args:
        section: templates, label and classes.
        label: the field that holds the class where the section does not say, or None.
    """

    def __init__(self, section: FieldSection, label: str | None) -> None:
        default = type(section).model_fields["captions"].default
        self.section = section
        # by value, not by whether it was written: a resolved recipe writes the default out
        self.templates = Templates(section.captions, lenient=section.captions == default)
        self.label_field = section.label or label
        self._numbers: ClassNumbers | None = None
        self._labels: np.ndarray | None = None

    @abstractmethod
    def _read_fields(self, index: int) -> Mapping[str, Any]:
        """The fields of a sample, without its picture. Raises SampleError."""

    @abstractmethod
    def read_picture(self, index: int) -> bytes:
        """The picture, encoded as it is stored. Raises SampleError."""

    def files(self, index: int) -> dict[str, bytes]:
        """What belongs to a sample beside its picture, as files of a WebDataset: extension -> data.

        Its fields as ``json`` and the name of its class as ``cls``, with which the section of
        ``packed_section`` gives the same captions and label. A field that is no text, number or
        list of these is left out, since no caption can hold it.

        Raises:
            SampleError: as reading the sample does.
        """
        fields = {key: plain_field(value) for key, value in self._read_fields(index).items()}
        if self.templates.lenient and "text" in fields:
            fields["txt"] = fields.pop("text")
        kept = {key: value for key, value in fields.items() if value is not None}
        files = {"json": json.dumps(kept, ensure_ascii=False, allow_nan=False).encode("utf-8")}
        label = self.describe(index)[1]
        if label is not None and self.classes is not None:
            files["cls"] = self.classes[label].encode("utf-8")
        return files

    def packed_section(self, **paths: str) -> ShardsData:
        """The section under which what ``files`` gives, in shards, is this set again.

        Args:
            paths: of the splits; and of ``classes``, where there are any.
        """
        kept = ("resample", "max_skipped")
        values: dict[str, Any] = {**paths, **{key: getattr(self.section, key) for key in kept}}
        if not self.templates.lenient:
            values["captions"] = self.section.captions
        return ShardsData(**values)

    def _label_values(self) -> Sequence[Any] | None:
        """The label field of every sample (None for none), where that needs no picture."""
        return None

    def __getitem__(self, index: int) -> Sample:
        captions, label = self.describe(index)
        name = self.name(index)
        picture = Encoded(self.read_picture(index), name, self.section.max_pixels)
        return Sample(name, picture, captions, label)

    def captions(self, index: int) -> tuple[str, ...]:
        return self.describe(index)[0]

    def _sources(self) -> Iterable[object] | None:
        """What tells one state of the set from another; None: nothing does."""
        return None

    def fingerprint(self) -> str | None:
        sources = self._sources()
        if sources is None:
            return None
        meaning = self.section.model_dump_json(exclude=_NO_MEANING)
        return digest_of(meaning, self.classes, len(self), *sources)

    def labels(self) -> np.ndarray | None:
        return self._labels

    @cached_property
    def _uses_class_name(self) -> bool:
        return "class" in self.templates.fields

    def describe(self, index: int) -> tuple[tuple[str, ...], int | None]:
        name = self.name(index)
        fields = self._read_fields(index)
        label = None
        if self.label_field is not None and self._numbers is not None:
            value = fields.get(self.label_field)
            if _is_there(value):
                label = self._numbers(value, name)
                if self._uses_class_name:
                    fields = {"class": self._numbers.names[label], **fields}
        return self.templates.fill(fields, name, labelled=label is not None), label

    def _resolve_classes(self, classes: Sequence[str] | None) -> None:
        """Number the labels by the section's classes, else by ``classes``, else by the labels
        themselves, and check all that can be had without pictures.

        Raises:
            DataError: no label, or too few (``data.max_skipped``), are among the classes; or no
                sample has the field.
        """
        if self.label_field is None:
            return
        values = self._label_values()
        found = values is not None and any(_is_there(value) for value in values)
        if values is not None and not found:
            if self.section.label is None:
                return
            raise DataError(
                f"data.label: {self.label_field!r}: no sample has that field; the first has: "
                f"{', '.join(sorted(self._read_fields(0))) or 'none'}"
            )
        names = load_classes(self.section.classes) if self.section.classes else classes
        if names is None:
            if values is None:
                raise DataError(
                    "data.classes: missing; they cannot be gathered from a set that is streamed"
                )
            names = natural_classes(values)
        self._numbers = ClassNumbers(names)
        self.classes = self._numbers.names
        if values is not None:
            self._labels = self._number_all(values)

    def _number_all(self, values: Sequence[Any]) -> np.ndarray:
        assert self._numbers is not None
        labels = np.full(len(values), -1, np.int64)
        strangers: list[SampleError] = []
        for index, value in enumerate(values):
            if _is_there(value):
                try:
                    labels[index] = self._numbers(value, self.name(index))
                except SampleError as error:
                    strangers.append(error)  # a few are bad samples, more are the wrong classes
        fits = bool((labels >= 0).any())
        if strangers and (
            len(strangers) > tolerated(self.section.max_skipped, len(values)) or not fits
        ):
            raise DataError(
                f"{strangers[0]}; so are the labels of {len(strangers):,} of {len(values):,} "
                "samples"
            )
        return labels


def _fill(parts: list[tuple[str, str | None]], fields: Mapping[str, Any]) -> list[str]:
    """The captions of one template. KeyError: an absent field; TypeError: one that is no text."""
    if len(parts) == 1 and not parts[0][0] and parts[0][1] is not None:
        return _texts(fields, parts[0][1])
    pieces: list[str] = []
    for literal, field in parts:
        pieces.append(literal)
        if field is not None:
            pieces.append(", ".join(_texts(fields, field)))
    caption = "".join(pieces).strip()
    # a list may be empty: "crayon, " is "crayon"
    return [caption.rstrip(" ,;:") if parts[-1][1] is not None and not pieces[-1] else caption]


def _texts(fields: Mapping[str, Any], field: str) -> list[str]:
    """The entries of a field as texts, one where it is no list."""
    value = fields.get(field)
    if not isinstance(value, _LISTS) and not _is_there(value):
        raise KeyError(field)
    entries = value if isinstance(value, _LISTS) else [value]
    return [_text(entry, field) for entry in entries if _is_there(entry)]


def plain_field(value: Any) -> Any:
    """A field as JSON can hold it; None for what is absent or no text, number or list of these."""
    if isinstance(value, _LISTS):
        return [entry for entry in map(plain_field, value) if entry is not None]
    if isinstance(value, np.generic):
        value = value.item()
    return value if isinstance(value, str | int | float) and _is_there(value) else None


def _is_there(value: Any) -> bool:
    """Not None, not NaN (an empty cell), not blank, not a list of nothing but these."""
    if value is None or (isinstance(value, float) and value != value):
        return False
    if isinstance(value, str):
        return bool(value.strip())
    return any(_is_there(entry) for entry in value) if isinstance(value, _LISTS) else True


def _fields_there(fields: Mapping[str, Any]) -> str:
    return f"fields: {', '.join(sorted(key for key in fields if _is_there(fields[key]))) or 'none'}"


def _text(value: Any, field: str) -> str:
    if isinstance(value, str):
        return value.strip()
    if isinstance(value, int | float | np.number):
        return str(value)
    raise TypeError(f"field {field!r} is {type(value).__name__}; allowed: a text, a number, a list")


def _label_text(label: Any) -> str:
    """A label as a name; 3, 3.0 and "3" are one."""
    if isinstance(label, float | np.floating) and float(label).is_integer():
        label = int(label)
    return str(label).strip()


def _read_classes(given: str, key: str) -> list[Any]:
    path = Path(given).expanduser()
    try:
        text = path.read_text(encoding="utf-8")
    except (FileNotFoundError, IsADirectoryError):
        raise RecipeError(f"{key}: no such file") from None
    except UnicodeDecodeError as error:
        raise RecipeError(f"{key}: not UTF-8: {error}") from None
    if path.suffix.lower() != ".json":
        return [line for line in text.splitlines() if line.strip()]
    try:
        values = json.loads(text)
    except json.JSONDecodeError as error:
        raise RecipeError(f"{key}: not JSON: {error}") from None
    if not isinstance(values, list):
        raise RecipeError(f"{key}: {type(values).__name__}; allowed: a list of names or of objects")
    if values and all(isinstance(value, dict) and "id" in value for value in values):
        values.sort(key=lambda value: value["id"])
        if [value["id"] for value in values] != list(range(len(values))):
            raise RecipeError(f"{key}: ids; allowed: 0 to {len(values) - 1}, each once")
    return [_class_name(value) for value in values]


def _class_name(value: Any) -> Any:
    if isinstance(value, dict):
        return value.get("text") or value.get("name")
    return value
