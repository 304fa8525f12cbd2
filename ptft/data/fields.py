"""What the fields of a sample mean: its captions and its class.

A field is a value with a name: a text file beside a picture, a key of its JSON, a column of a
table. Captions are templates over fields; a label is a field that names a class or its number.
"""

import json
from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np

from ptft.data.classes import ClassNumbers, load_classes, natural_classes
from ptft.data.decode import Encoded
from ptft.data.faults import tolerated
from ptft.data.hashing import digest_of
from ptft.data.sample import Sample, SampleSet
from ptft.data.templates import Templates, is_there, plain_field
from ptft.errors import DataError, SampleError
from ptft.recipe.data import INDIFFERENT, FolderData, ShardsData, TableData

__all__ = ["FieldSection", "FieldSet"]

FieldSection = ShardsData | FolderData | TableData
"""A data section whose samples have fields."""

_NO_MEANING = {"train", "val", "test", "limit", "resample", *INDIFFERENT}  # of a sample's fields


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
            if is_there(value):
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
        found = values is not None and any(is_there(value) for value in values)
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
            if is_there(value):
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
