"""What a split of a data section holds, looked at before anything is learned from it.

Counts and names are of all samples; what needs pictures is of some of them, spread evenly, unless
all are asked for.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from statistics import median
from typing import Any

import numpy as np
from PIL import Image

from ptft.data.boxes.box import BoxTally
from ptft.data.boxes.read import placed_boxes
from ptft.data.checks.names import is_word_for_nothing
from ptft.data.fields.joining import AUTO_BYTES, digest_picture
from ptft.data.reading.decode import Encoded
from ptft.data.reading.faults import tolerated
from ptft.data.sample import SampleSet
from ptft.data.sources.spelling import SPELT
from ptft.errors import FAULTS, DataError, Fault, SampleError
from ptft.preprocess.decoding import open_picture
from ptft.preprocess.picture_parts import orientation_of

__all__ = ["COMPARED", "Survey", "digests", "survey_split"]

_PICTURES = 128  # decoded, where not all are asked for
COMPARED = 2000  # held against each other likewise: of 100,000 rows, 5 a picture, 80 pairs show
_CAPTIONS = 2048  # read likewise
_FIRST = 3  # samples that are shown
_EXAMPLES = 5  # of a fault

Faults = dict[Fault, tuple[int, list[str]]]
"""Kind of a fault -> how many samples have it, and what the first ones say."""

Extremes = dict[str, tuple[str, int, int]]
"""Which it is ("widest") -> the name of a sample, width and height of its picture."""


@dataclass(frozen=True)
class Survey:
    """What a split holds, as far as it was read.

    Attributes:
        samples: in all.
        classes: names, or None.
        counts: samples of each class, in the order of ``classes``; None where that takes reading.
        unlabelled: samples without a class.
        labels_are: how labels were read, in words; "" without any.
        absent: samples whose picture is not there, and the first one's name.
        looked: samples whose pictures were decoded.
        faults: of those that were looked at.
        sizes: width and height of those.
        forms: format and mode of those ("JPEG RGB") -> how many.
        extremes: the smallest, largest, widest and tallest of those.
        orientations: EXIF's number of those (1: upright as they lie) -> how many.
        read: samples whose captions were read.
        words: captions of those.
        distinct: different captions of those.
        characters: length of each caption, ascending.
        without: of those, samples that have no caption.
        nothing: captions that are how programs write that there is none ("nan"), and the first.
        first: the first samples: name, class or boxes in words, captions.
        said: what was joined, passed over and taken for something.
    """

    samples: int
    classes: list[str] | None
    counts: list[int] | None
    unlabelled: int
    labels_are: str
    absent: tuple[int, str]
    looked: int
    faults: Faults
    sizes: list[tuple[int, int]]
    forms: dict[str, int]
    extremes: Extremes
    orientations: dict[int, int]
    read: int
    words: int
    distinct: int
    characters: list[int]
    without: int
    nothing: tuple[int, str]
    first: list[tuple[str, str | None, tuple[str, ...]]]
    said: list[str] = field(default_factory=list)

    @property
    def seen(self) -> list[str]:
        """Names of the classes that occur."""
        pairs = zip(self.classes or [], self.counts or [], strict=False)
        return [name for name, count in pairs if count]

    @property
    def turned(self) -> int:
        """Pictures whose EXIF says that they lie on their side or head, or are mirrored."""
        return sum(count for number, count in self.orientations.items() if number != 1)

    @property
    def lengths(self) -> tuple[int, float, int] | None:
        """Shortest, median and longest caption in characters."""
        if not self.characters:
            return None
        return self.characters[0], median(self.characters), self.characters[-1]

    def problems(self, max_skipped: float) -> list[str]:
        """What would stop a run, or make its figures worthless.

        Args:
            max_skipped: share of the samples that may be broken.
        """
        found: list[str] = []
        most = tolerated(max_skipped, self.samples)
        if self.absent[0] > most:
            found.append(
                f"{self.absent[0]:,} of {self.samples:,} pictures are absent (first: "
                f"{self.absent[1]}); allowed: {max_skipped:.1%} (data.max_skipped)"
                + "".join(f"; {said}" for said in self.said if said.startswith(SPELT))
            )
        broken = sum(count for count, _ in self.faults.values())
        if self.looked and broken > tolerated(max_skipped, self.looked):
            kinds = "; ".join(f"{n:,} {kind}: {ones[0]}" for kind, (n, ones) in self.faults.items())
            found.append(f"{broken:,} of {self.looked:,} samples looked at cannot be read: {kinds}")
        return found

    def summary(self) -> dict[str, Any]:
        """As plain values for JSON."""
        values: dict[str, Any] = {"samples": self.samples}
        if self.classes is not None:
            values["classes"] = len(self.classes)
            values["labels_are"] = self.labels_are
            if self.counts is not None:
                values["counts"] = dict(zip(self.classes, self.counts, strict=True))
            values["unlabelled"] = self.unlabelled
        if self.absent[0]:
            values["absent"] = self.absent[0]
        values["pictures_looked_at"] = self.looked
        if self.faults:
            values["faults"] = {kind: count for kind, (count, _) in self.faults.items()}
        if self.lengths is not None:
            least, middle, most = self.lengths
            values["captions"] = {
                "read": self.words,
                "different": self.distinct,
                "characters": {"least": least, "median": middle, "most": most},
                "samples_without": self.without,
            }
        if self.turned:
            values["turned_by_exif"] = self.turned
        values["formats"] = self.forms
        values["said"] = self.said
        return values


def survey_split(samples: SampleSet, *, every: bool = False, pictures: bool = True) -> Survey:
    """Read a split, or samples of it, and count what it holds.

    Args:
        every: decode every picture, and read every caption.
        pictures: look at pictures at all.
    """
    absent = samples.absent() if pictures else []
    captions, without = _captions(samples, every)
    nothing = list(filter(is_word_for_nothing, captions))
    seen = _Pictures()
    if pictures:
        gone = set(absent)
        seen.add(samples, (i for i in _spread(samples, _PICTURES, every) if i not in gone))
    labels = samples.labels()
    counts = None
    if labels is not None and samples.classes is not None:
        kinds = samples.class_counts()
        counts = [int(count) for count in (() if kinds is None else kinds)]
    return Survey(
        samples=len(samples),
        classes=samples.classes,
        counts=counts,
        unlabelled=0 if labels is None else int((labels < 0).sum()),
        labels_are=samples.labels_are,
        absent=(len(absent), samples.name(absent[0]) if absent else ""),
        looked=seen.looked,
        faults=seen.faults,
        sizes=seen.sizes,
        forms=dict(seen.forms.most_common()),
        extremes=seen.extremes,
        orientations=dict(sorted(seen.orientations.items())),
        read=_spread_count(samples, _CAPTIONS, every),
        words=len(captions),
        distinct=len(set(captions)),
        characters=sorted(len(text) for text in captions),
        without=without,
        nothing=(len(nothing), nothing[0] if nothing else ""),
        first=list(_first(samples)),
        said=samples.notes(1),
    )


def digests(samples: SampleSet, *, every: bool = False) -> Iterator[tuple[int, bytes]]:
    """Number and digest of each picture that is stored, where all are 1 GiB or less together (by
    the first of them), or ``every`` is asked for."""
    size = 0
    for index in range(len(samples)):
        try:
            picture = samples[index].picture
        except (SampleError, DataError):
            continue
        if not isinstance(picture, Encoded):
            return
        size += len(picture.data)
        if not every and size * len(samples) > AUTO_BYTES * (index + 1) and index >= COMPARED:
            return
        digest = digest_picture(picture.data)
        if digest is not None:
            yield index, digest


def _spread_count(samples: SampleSet, most: int, every: bool) -> int:
    return len(samples) if every else min(most, len(samples))


def _spread(samples: SampleSet, most: int, every: bool) -> Sequence[int]:
    """Numbers of at most so many samples: the first of a set that is read in order, else spread."""
    count = _spread_count(samples, most, every)
    if every or samples.in_order:
        return range(count)
    found: list[int] = np.linspace(0, len(samples) - 1, count).astype(np.int64).tolist()
    return found


def _captions(samples: SampleSet, every: bool) -> tuple[list[str], int]:
    """Captions of some samples, and how many of these have none."""
    captions: list[str] = []
    without = 0
    for index in _spread(samples, _CAPTIONS, every):
        try:
            found = samples.captions(index)
        except SampleError:
            found = ()
        captions += found
        without += not found
    return captions, without


def _first(samples: SampleSet) -> Iterator[tuple[str, str | None, tuple[str, ...]]]:
    for index in islice(range(len(samples)), _FIRST):
        try:
            captions, label = samples.describe(index)
        except SampleError as error:
            captions, label = (f"({error})",), None
        what = None
        if label is not None and samples.classes is not None:
            what = ", ".join(samples.label_names(label))
        elif samples.box_classes:
            what = _marked(samples, index)
        yield samples.name(index), what, captions


def _marked(samples: SampleSet, index: int) -> str | None:
    """How many boxes of each class a picture has."""
    try:
        boxes = samples[index].boxes
    except SampleError:
        return None
    if boxes is None or not samples.box_classes:
        return None
    counts = Counter(samples.box_classes[number] for number in boxes.labels.tolist())
    found = ", ".join(f"{name} {count}" for name, count in counts.most_common(_EXAMPLES))
    more = ", ..." if len(counts) > _EXAMPLES else ""
    return f"{len(boxes)} boxes ({found}{more})" if counts else "no box"


class _Pictures:
    """What the pictures of some samples are."""

    def __init__(self) -> None:
        self.looked = 0
        self.faults: Faults = {}
        self.sizes: list[tuple[int, int]] = []
        self.extremes: Extremes = {}
        self.forms: Counter[str] = Counter()
        self.orientations: Counter[int] = Counter()

    def add(self, samples: SampleSet, indices: Iterable[int]) -> None:
        for index in indices:
            self.looked += 1
            try:
                sample = samples[index]
                self._look(sample.picture, sample.name)
                if sample.boxes is not None:
                    placed_boxes(sample, self.sizes[-1], BoxTally())
            except SampleError as error:
                count, examples = self.faults.get(error.fault, (0, []))
                self.faults[error.fault] = (count + 1, [*examples, str(error)][:_EXAMPLES])
        self.faults = {kind: self.faults[kind] for kind in FAULTS if kind in self.faults}

    def _look(self, picture: Encoded | Image.Image, name: str) -> None:
        if isinstance(picture, Image.Image):
            self._measure(name, *picture.size)
            self.forms["drawn"] += 1
            return
        pixels = picture.pixels()  # as a whole, as training reads it
        self._measure(name, pixels.shape[1], pixels.shape[0])
        with open_picture(picture.data) as image:
            self.forms[f"{image.format} {image.mode}"] += 1
            if image.format == "PNG":
                image.load()  # it may tell behind its pixels
            self.orientations[orientation_of(image)] += 1

    def _measure(self, name: str, width: int, height: int) -> None:
        self.sizes.append((width, height))
        for kind, measure in _EXTREMES.items():
            known = self.extremes.get(kind)
            if known is None or measure(width, height) > measure(*known[1:]):
                self.extremes[kind] = (name, width, height)


_EXTREMES: dict[str, Callable[[int, int], float]] = {
    "smallest": lambda width, height: -width * height,
    "largest": lambda width, height: width * height,
    "widest": lambda width, height: width / height,
    "tallest": lambda width, height: height / width,
}
