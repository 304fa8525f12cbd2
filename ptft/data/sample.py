"""One image with its captions and class, and the set that samples are read from."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from PIL import Image

from ptft.data.boxes.box import Boxes
from ptft.data.groups import places_within
from ptft.data.hashing import digest_of, first_of_permutation, hash_integers, permutation
from ptft.data.label_sets import LabelSets
from ptft.data.reading.decode import Encoded
from ptft.data.reading.order import ORDER, BalancedOrder, Order, OrderVersion, RunOrder
from ptft.errors import DataError
from ptft.preprocess.decoding import READING, Reading

__all__ = [
    "Part",
    "Resample",
    "Sample",
    "SampleSet",
    "Subset",
    "contact_sheet",
    "draw_samples",
    "draw_val",
    "with_labels",
]

Resample = Literal["none", "uniform", "class"]
"""Each once an epoch; drawn with replacement; every class equally often."""


@dataclass(frozen=True)
class Sample:
    """What one sample holds.

    Attributes:
        name: of the sample within its set, for people.
        picture: of any size; encoded, or drawn (RGB).
        captions: texts that describe it; none where the set only has classes.
        label: its class as a number below ``len(classes)``, or None; where a sample may have
            several, the number of its set among ``SampleSet.label_sets``.
        boxes: what is marked in it, or None where nobody says.
    """

    name: str
    picture: Encoded | Image.Image
    captions: tuple[str, ...]
    label: int | None
    boxes: Boxes | None = None

    @property
    def image(self) -> Image.Image:
        """The picture in RGB, decoded each time, read as a new model would. Raises SampleError
        where it is broken."""
        return self.decoded(READING)

    def decoded(self, reading: Reading) -> Image.Image:
        """The same, read as a given model does."""
        if isinstance(self.picture, Image.Image):
            return self.picture
        return self.picture.image(reading)


class SampleSet(ABC):
    """Samples, read by number: reading one never depends on which were read before.

    Attributes:
        classes: names of the classes in the order of their numbers, or None.
        window: None where any sample is as near as any other. Else the samples can only be read
            well in runs of this many consecutive ones, so they are shuffled within such runs.
        blocks: None, or the numbers at which pieces of the set begin (int64, ascending from 0)
            that are read as a whole; they are shuffled as wholes, then within windows.
        resample: how a run draws from the set, see ``order``.
        box_classes: names of what boxes mark, in the order of their numbers, or None: no boxes.
        label_sets: which classes the numbers of labels stand for, where a sample may have several;
            None: a label is a class.
    """

    classes: list[str] | None = None
    box_classes: list[str] | None = None
    label_sets: LabelSets | None = None
    window: int | None = None
    blocks: np.ndarray | None = None
    resample: Resample = "none"
    _expected: np.ndarray | None = None

    @property
    def size(self) -> int:
        """Number of samples."""
        return len(self)

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def __getitem__(self, index: int) -> Sample:
        """Read sample ``index``; its picture need not be decoded yet.

        Raises:
            SampleError: naming the sample and why it cannot be read.
        """

    @abstractmethod
    def name(self, index: int) -> str:
        """The name of a sample, without reading its picture."""

    @abstractmethod
    def captions(self, index: int) -> tuple[str, ...]:
        """The captions of a sample, without decoding its picture. Raises SampleError."""

    def notes(self, readers: int) -> list[str]:
        """List what is worth knowing before a run of ``readers`` reading processes, a line each."""
        return []

    def labels(self) -> np.ndarray | None:
        """Labels of all samples, int64 (N,), -1 for none; None where that needs every picture."""
        return None

    def label_names(self, label: int) -> list[str]:
        """The names of the class that a label is, or of the several that it stands for."""
        names = self.classes or []
        numbers = [label] if self.label_sets is None else self.label_sets[label]
        return [names[number] for number in numbers]

    def class_counts(self) -> np.ndarray | None:
        """Samples of each class, int64 (C,); None as of :meth:`labels`, or without classes."""
        labels = self.labels()
        if labels is None or self.classes is None:
            return None
        if self.label_sets is not None:
            return self.label_sets.counts(labels)
        return np.bincount(labels[labels >= 0], minlength=len(self.classes))

    def describe(self, index: int) -> tuple[tuple[str, ...], int | None]:
        """The captions and the label of a sample, its picture undecoded. Raises SampleError."""
        sample = self[index]
        return sample.captions, sample.label

    def pictures(self) -> np.ndarray | None:
        """Of each sample the number of its picture, int64 (N,), equal where two samples show the
        same one; None where that is not known, or no two do."""
        return None

    @property
    def labels_are(self) -> str:
        """How labels were read, in words; "" where there are none."""
        return ""

    def absent(self) -> list[int]:
        """List the samples, by number, whose picture is known to be missing without reading it."""
        return []

    def picture_of(self, index: int) -> int:
        """Number a sample's picture, below 2^63, alike where two samples show the same one."""
        return index

    def fingerprint(self) -> str | None:
        """Changes when a sample may have changed, without reading any: from names, sizes and times
        of files. None: the set cannot tell."""
        return None

    @property
    def in_order(self) -> bool:
        """Whether the set is read well in its own order only, so that each process that reads it
        reads all of it."""
        return self.window is not None and self.blocks is None

    def look_ahead(self, order: RunOrder, position: int) -> None:
        """Announce that the sample at ``position`` of a run is read next."""
        coming = order.coming(position)
        if coming is not None and coming is not self._expected:
            self._expected = coming
            self.expect(coming)

    def expect(self, indices: np.ndarray) -> None:  # noqa: B027 - most sets are near
        """Announce samples that are read soon, about in this order: a set may fetch what is far."""

    def order(self, seed: int, version: OrderVersion = ORDER) -> RunOrder:
        """Give the order of a run: position -> number of a sample."""
        if self.resample == "class":
            labels = self.labels()
            assert labels is not None, "open_split refuses what has none"
            return BalancedOrder(labels, seed, version)
        redraw = self.resample == "uniform"
        return Order(len(self), seed, self.window, self.blocks, redraw, version)


def draw_samples(
    samples: SampleSet, seed: int, *, limit: int | None = None, shots: int | None = None
) -> np.ndarray:
    """Draw samples by a seed: their numbers, ascending, int64.

    A smaller draw with the same seed is a part of a larger one.

    Args:
        limit: how many in all; absent, or at least ``len(samples)``: all.
        shots: how many of each class at most, before ``limit``; samples without a class are left
            out.

    Raises:
        DataError: ``shots``, and the classes cannot be read without the pictures.
    """
    key = hash_integers(seed, _SUBSET)
    if shots is None:
        return first_of_permutation(key, len(samples), len(samples) if limit is None else limit)
    labels = samples.labels()
    if labels is None:
        raise DataError("data.shots: this set's classes are not known before it is read")
    order = permutation(key, len(samples))
    drawn = labels[order]
    place, _ = places_within(drawn)
    return np.sort(order[(place < shots) & (drawn >= 0)][:limit])


class Part(SampleSet):
    """Some of another set's samples, in the set's order.

    Args:
        samples: the whole set.
        indices: their numbers there, int64, ascending.
    """

    def __init__(self, samples: SampleSet, indices: np.ndarray) -> None:
        self.samples = samples
        self.classes = samples.classes
        self.box_classes = samples.box_classes
        self.label_sets = samples.label_sets
        self.indices = indices
        if samples.window is not None:
            # half as far as the whole set's windows reach, so that one lies in two of them at most
            self.window = max(1, samples.window * len(self.indices) // len(samples) // 2)
        if samples.blocks is not None:
            starts = np.searchsorted(self.indices, samples.blocks)
            self.blocks = np.unique(starts[starts < len(self.indices)])

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> Sample:
        return self.samples[int(self.indices[index])]

    def name(self, index: int) -> str:
        return self.samples.name(int(self.indices[index]))

    def captions(self, index: int) -> tuple[str, ...]:
        return self.samples.captions(int(self.indices[index]))

    def labels(self) -> np.ndarray | None:
        labels = self.samples.labels()
        return None if labels is None else labels[self.indices]

    def describe(self, index: int) -> tuple[tuple[str, ...], int | None]:
        return self.samples.describe(int(self.indices[index]))

    def picture_of(self, index: int) -> int:
        return self.samples.picture_of(int(self.indices[index]))

    @property
    def labels_are(self) -> str:
        return self.samples.labels_are

    def absent(self) -> list[int]:
        return np.flatnonzero(np.isin(self.indices, self.samples.absent())).tolist()

    def pictures(self) -> np.ndarray | None:
        pictures = self.samples.pictures()
        return None if pictures is None else pictures[self.indices]

    def notes(self, readers: int) -> list[str]:
        return self.samples.notes(readers)

    def expect(self, indices: np.ndarray) -> None:
        self.samples.expect(self.indices[indices])

    def fingerprint(self) -> str | None:
        whole = self.samples.fingerprint()
        return None if whole is None else digest_of("subset", whole, self.indices.tobytes())


class Subset(Part):
    """A fixed choice of another set's samples, drawn by a seed.

    Args:
        samples: the whole set.
        count, seed, shots: see :func:`draw_samples`.
    """

    def __init__(
        self, samples: SampleSet, count: int | None, seed: int, shots: int | None = None
    ) -> None:
        super().__init__(samples, draw_samples(samples, seed, limit=count, shots=shots))


def with_labels(samples: SampleSet) -> tuple[SampleSet, list[str]]:
    """The samples that have a class, and what there is to say of the others; all of a set whose
    labels are not known before it is read, that has none, or that draws in an order of its own."""
    plain = type(samples).order is SampleSet.order
    labels = samples.labels() if plain else None
    kept = np.flatnonzero(labels >= 0) if labels is not None else np.empty(0, np.int64)
    if not len(kept) or len(kept) == len(samples):
        return samples, []
    bare, part = len(samples) - len(kept), Part(samples, kept)
    part.resample = samples.resample
    return part, [f"left out: {bare:,} of {len(samples):,} samples have no class"]


def draw_val(samples: SampleSet, most: int, seed: int) -> SampleSet:
    """At most so many samples of a validation set, drawn by a seed, apart from the draw of training
    samples; all where there are no more."""
    return samples if most >= len(samples) else Subset(samples, most, seed + _VAL)


_VAL = 0x76616C  # "val"
_SUBSET = 0x73756273  # "subs": keeps this draw apart from the others of the same seed


def contact_sheet(samples: SampleSet, indices: Sequence[int], columns: int = 8) -> Image.Image:
    """Draw pictures side by side, row by row, each in a cell of the first one's size."""
    pictures = [samples[index].image for index in indices]
    width, height = pictures[0].size
    gap = max(1, width // 16)
    rows = -(-len(pictures) // columns)
    sheet = Image.new(
        "RGB", (columns * (width + gap) + gap, rows * (height + gap) + gap), (120, 120, 120)
    )
    for place, picture in enumerate(pictures):
        row, column = divmod(place, columns)
        fitted = picture if picture.size == (width, height) else picture.resize((width, height))
        sheet.paste(fitted, (gap + column * (width + gap), gap + row * (height + gap)))
    return sheet
