"""What the fields of a sample mean: its captions, its class, its boxes.

A field is a value with a name: a text file beside a picture, a key of its JSON, a column of a
table. Captions are templates over fields; a label is a field that names a class or its number.
Rows of one picture are one sample, with the captions of all of them.
"""

import json
from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ptft.data.fields.joining import Groups, group_rows
from ptft.data.fields.label_values import LabelCodes
from ptft.data.fields.labels import LabelReading, Learn, TextIs
from ptft.data.fields.marks import Marks, read_marks
from ptft.data.fields.row_ids import other_pictures, read_ids
from ptft.data.fields.set_labels import FieldSection, SetLabels, read_set_labels
from ptft.data.fields.templates import Templates, plain_field
from ptft.data.hashing import digest_of
from ptft.data.mapped import shared
from ptft.data.reading.decode import Encoded
from ptft.data.sample import Sample, SampleSet
from ptft.errors import SampleError
from ptft.recipe.data import INDIFFERENT, ShardsData

__all__ = ["FieldSection", "FieldSet"]

# keys that say nothing of what a sample is
_NO_MEANING = {"train", "val", "test", "limit", "resample", "group", *INDIFFERENT}


class FieldSet(SampleSet):
    """A sample set whose captions, classes and boxes come from fields of rows, for kinds to fill
    in: one sets itself up, then calls ``_settle``.

    Args:
        section: templates, label and classes.
        label: the field that holds the class where the section does not say, or None.

    Attributes:
        reading: how labels are read; None without any.
        said: what was joined, passed over and taken for something, a line each.
    """

    text_is: TextIs = "typed"

    def __init__(self, section: FieldSection, label: str | None) -> None:
        default = type(section).model_fields["captions"].default
        self.section = section
        # by value, not by whether it was written: a resolved recipe writes the default out
        self.templates = Templates(section.captions, lenient=section.captions == default)
        self.label_field = section.label or (label if section.boxes is None else None)
        self.reading: LabelReading | None = None
        self.said: list[str] = []
        self._labels: np.ndarray | None = None
        self._groups: Groups | None = None
        self._pictures: np.ndarray | None = None
        self._marks: Marks | None = None
        self._told: SetLabels | None = None

    @abstractmethod
    def _count_rows(self) -> int:
        """How many rows there are."""

    @abstractmethod
    def _row_name(self, row: int) -> str:
        """The name of a row."""

    @abstractmethod
    def _read_fields(self, row: int) -> Mapping[str, Any]:
        """The fields of a row, without its picture. Raises SampleError."""

    @abstractmethod
    def _read_row(self, row: int) -> bytes:
        """The picture of a row, encoded as it is stored. Raises SampleError."""

    def _label_values(self) -> Sequence[Any] | LabelCodes | None:
        """The label field of every row (None for none), where that needs no picture."""
        return None

    def _schema_names(self) -> Sequence[str] | None:
        """Names that the source itself gives to the numbers of the label field."""
        return None

    def _same_pictures(self) -> np.ndarray | None:
        """Of each row the number of the first row that has its picture, int64 (R,), as
        ``data.join`` asks for it; None where rows are not held against each other."""
        return None

    def _picture_ids(self) -> list[str | None]:
        """The text of ``data.picture_id`` of every row; None where a row lacks it."""
        field, count = self.section.picture_id or "", self._count_rows()
        return read_ids("data.picture_id", field, count, self._read_fields)

    def groups(self) -> list[str | None] | None:
        """The text of ``data.group`` of every sample, of its first row; None without the key."""
        if self.section.group is None:
            return None
        count = self._count_rows()
        ids = read_ids("data.group", self.section.group, count, self._read_fields)
        return ids if self._groups is None else [ids[row] for row in self._groups.firsts.tolist()]

    def _sources(self) -> Iterable[object] | None:
        """What tells one state of the set from another; None: nothing does."""
        return None

    def __len__(self) -> int:
        return self._count_rows() if self._groups is None else len(self._groups)

    def rows(self, index: int) -> list[int]:
        """The rows of a sample, in their order."""
        return [index] if self._groups is None else self._groups.rows(index)

    def name(self, index: int) -> str:
        return self._row_name(self.rows(index)[0])

    def read_picture(self, index: int) -> bytes:
        """The picture of a sample, encoded as it is stored. Raises SampleError."""
        return self._read_row(self.rows(index)[0])

    def picture_place(self, index: int) -> tuple[Path, int, int] | None:
        """The file that holds a sample's picture as it is, its offset there and its size in bytes;
        None where no file here does."""
        return None

    def stored_files(self) -> list[Path]:
        """The files here whose rows the samples are; none where they lie otherwise."""
        return []

    def __getitem__(self, index: int) -> Sample:
        captions, label = self.describe(index)
        name = self.name(index)
        picture = Encoded(self.read_picture(index), name, self.section.max_pixels)
        marked = None if self._marks is None else self._marks.boxes[self.rows(index)[0]]
        return Sample(name, picture, captions, label, marked)

    def captions(self, index: int) -> tuple[str, ...]:
        return self.describe(index)[0]

    def labels(self) -> np.ndarray | None:
        return self._labels

    def pictures(self) -> np.ndarray | None:
        if self._pictures is None:
            return None
        return self._pictures if self._groups is None else self._pictures[self._groups.firsts]

    @property
    def labels_are(self) -> str:
        return "" if self.reading is None else self.reading.said

    def picture_of(self, index: int) -> int:
        row = self.rows(index)[0]
        return row if self._pictures is None else int(self._pictures[row])

    def notes(self, readers: int) -> list[str]:
        return list(self.said)

    def fingerprint(self) -> str | None:
        sources = self._sources()
        if sources is None:
            return None
        meaning = self.section.model_dump_json(exclude=_NO_MEANING)
        return digest_of(meaning, self.classes, len(self), *sources)

    @property
    def _has_captions(self) -> bool:
        """Whether a row may have a caption that another row of its picture has not; and where none
        is read, whose pictures are one sample each."""
        if not self.section.captions:
            return True
        wanted = self.templates.fields - {"class", self.label_field}
        if self.templates.lenient and self.reading is not None:
            return bool(wanted & self._field_names())  # classes may do without captions
        return bool(wanted)

    def _field_names(self) -> set[str]:
        """Of the fields that rows have, as far as that is known without reading them."""
        return set()

    def describe(self, index: int) -> tuple[tuple[str, ...], int | None]:
        rows = self.rows(index)
        if len(rows) == 1:
            return self._describe_row(rows[0])
        captions: list[str] = []
        label, without = None, None
        for row in rows:
            try:
                own, label = self._describe_row(row)
                captions += own
            except SampleError as error:
                if error.fault != "empty":
                    raise
                without = without or error  # another row may have a caption
        if without is not None and not captions:
            raise without
        return tuple(dict.fromkeys(captions)), label

    def _describe_row(self, row: int) -> tuple[tuple[str, ...], int | None]:
        name = self._row_name(row)
        fields = self._read_fields(row)
        label = None
        if self.label_field is not None and self._told is not None:
            label = self._told.of(fields.get(self.label_field), name)
            if "class" in self.templates.fields and label is not None:
                fields = {"class": self._told.words(label), **fields}
        plain = label is not None or self._marks is not None  # it may do without a caption
        try:
            return self.templates.fill(fields, name, labelled=plain), label
        except SampleError as error:
            if plain or self._told is None or error.fault != "empty":
                raise
            told = str(error).removeprefix(f"{name}: ")
            what = f"{name}: no label in {self.label_field!r}, nor a caption: {told}"
            raise SampleError(what, "empty") from None

    def files(self, index: int) -> dict[str, bytes]:
        """What belongs to a sample beside its picture, as files of a WebDataset: extension -> data.

        Its fields as ``json`` and the name of its class as ``cls``, with which the section of
        ``packed_section`` gives the same captions and label. A field that is no text, number or
        list of these is left out, since no caption can hold it. Where rows were joined, the
        captions stand there as they are.

        Raises:
            SampleError: as reading the sample does.
        """
        first = self._read_fields(self.rows(index)[0])
        fields = {key: plain_field(value) for key, value in first.items()}
        captions, label = self.describe(index)
        if self._groups is not None:
            fields["txt"] = list(captions)
        elif self.templates.lenient and "text" in fields:
            fields["txt"] = fields.pop("text")
        kept = {key: value for key, value in fields.items() if value is not None}
        files = {"json": json.dumps(kept, ensure_ascii=False, allow_nan=False).encode("utf-8")}
        if label is not None and self.classes is not None:
            names = self.label_names(label)
            several = self.label_sets is not None
            text = json.dumps(names, ensure_ascii=False) if several else names[0]
            files["cls"] = text.encode("utf-8")
        return files

    def packed_section(self, **paths: str) -> ShardsData:
        """The section under which what ``files`` gives, in shards, is this set again.

        Args:
            paths: of the splits; and of ``classes``, where there are any.
        """
        kept = ("resample", "max_skipped", "labels", "group")
        values: dict[str, Any] = {**paths, **{key: getattr(self.section, key) for key in kept}}
        if not self.templates.lenient and self._groups is None:
            values["captions"] = self.section.captions
        return ShardsData(**values)

    def _settle(self, classes: Sequence[str] | None, learn: Learn | None = None) -> None:
        """Decide what labels mean, check all that can be had without pictures, join rows.

        Args:
            classes: to number the labels by where the section has none.
            learn: reads the labels of the section's training set, for another split of it.

        Raises:
            DataError: a label is none, or is of no class (beyond ``data.max_skipped``); or no
                sample has the field.
        """
        self._read_labels(classes, learn or (lambda: None))
        if self.section.boxes is not None:
            of = (self._count_rows(), self._row_name, self._read_fields, self._read_row)
            self._marks = read_marks(self.section, self._schema_names(), classes, *of)
            self.box_classes = self._marks.classes
            self.said += self._marks.said
        self._join()

    def _read_labels(self, classes: Sequence[str] | None, learn: Learn) -> None:
        if self.label_field is None:
            return
        self._told = read_set_labels(
            self.section,
            self.label_field,
            self._label_values(),
            text_is=self.text_is,
            schema=self._schema_names(),
            classes=classes,
            learn=learn,
            name=self._row_name,
            first=lambda: self._read_fields(0),
        )
        if self._told is not None:
            self.reading, self.label_sets = self._told.reading, self._told.sets
            self.classes = list(self.reading.names)
            self._labels = None if self._told.rows is None else shared(self._told.rows)
            self.said += self._told.said

    def _join(self) -> None:
        """Make one sample of the rows of one picture, where they have captions.

        A row with a class is a sample of its own, for what is asked of it may be its text (a
        question about a picture, say); only by its section's word it is joined to others of its
        class.
        """
        same = self._same_pictures()
        if same is None or bool((same == np.arange(len(same))).all()):
            return
        self._pictures = shared(same)
        labels = np.zeros_like(same) if self._labels is None else self._labels
        asked = self.section.join == "bytes" or self.section.picture_id is not None
        captions = self._has_captions and self._marks is None  # boxes are of a row
        joins = captions and (self.reading is None or asked)
        groups = group_rows(same, labels) if joins else None
        pictures = len(np.unique(same))
        if groups is None:
            if pictures < len(same):
                joined = "; data.join: bytes makes one sample of those of one class"
                self.said.append(
                    f"{len(same) - pictures:,} of {len(same):,} samples have the picture of "
                    f"another sample{joined if captions and not asked else ''}"
                )
            return
        told = ", with the captions of all their rows" if self.section.captions else ""
        self.said.append(
            f"joined: {len(same):,} rows are {len(groups):,} samples of {pictures:,} pictures"
            f"{told} (data.join)"
        )
        if self.section.picture_id is not None:
            field, name = self.section.picture_id, self._row_name
            self.said += other_pictures(field, groups, name, self._read_row)
        self._groups = groups
        if self._labels is not None:
            self._labels = self._labels[groups.firsts]
        if self.window is not None:
            self.window = max(1, self.window * len(groups) // len(same))
        if self.blocks is not None:
            starts = np.searchsorted(groups.firsts, self.blocks)
            self.blocks = np.unique(starts[starts < len(groups)])
