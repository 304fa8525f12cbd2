"""A labelled set whose captions are made of class names, for contrastive fine-tuning.

"Finetune like you pretrain" (FLYP; Goyal et al. 2023) trains a labelled set with the loss of
pretraining, on the class names put into prompts. There two pictures of one class are negatives of
each other; here :func:`same_class` lets an objective tell that they are not.
"""

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import replace

import numpy as np

from ptft.data.hashing import digest_of
from ptft.data.reading.batch import Batch
from ptft.data.reading.order import ORDER, OrderVersion, RunOrder
from ptft.data.sample import Sample, SampleSet
from ptft.errors import DataError, SampleError

__all__ = ["ClassCaptions", "same_class"]


class ClassCaptions(SampleSet):
    """Another set's samples in the same order, each with its class name in every template.

    Captions of the set itself are left out. A sample without a label cannot be read.

    Args:
        samples: a set with classes.
        templates: with ``{}`` where the name goes.
        alone: False: among sets of other classes, or of none; then it tells of no classes itself.

    Raises:
        DataError: the set has no classes.
    """

    def __init__(self, samples: SampleSet, templates: Sequence[str], *, alone: bool = True) -> None:
        if not samples.classes:
            key = "objective.templates" if alone else "templates"
            raise DataError(
                f"{key}: captions of class names need data with classes; "
                "see data.label and data.classes"
            )
        if samples.label_sets is not None:
            raise DataError(
                "objective.templates: with data.labels 'many': a caption names one class; allowed: "
                "data.captions with {class}, or objective.kind: classify"
            )
        self.samples = samples
        self.templates = tuple(templates)
        self.classes = samples.classes if alone else None
        self.window, self.blocks = samples.window, samples.blocks
        self.resample = samples.resample
        self._captions = [
            tuple(dict.fromkeys(template.replace("{}", name) for template in templates))
            for name in samples.classes
        ]

    def __len__(self) -> int:
        return len(self.samples)

    @property
    def size(self) -> int:
        return self.samples.size

    @property
    def in_order(self) -> bool:
        return self.samples.in_order

    def __getitem__(self, index: int) -> Sample:
        sample = self.samples[index]
        return replace(sample, captions=self._of(sample.label, sample.name))

    def name(self, index: int) -> str:
        return self.samples.name(index)

    def captions(self, index: int) -> tuple[str, ...]:
        return self.describe(index)[0]

    def describe(self, index: int) -> tuple[tuple[str, ...], int | None]:
        label = self.samples.describe(index)[1]
        return self._of(label, self.name(index)), label

    @property
    def labels_are(self) -> str:
        return self.samples.labels_are

    def absent(self) -> list[int]:
        return self.samples.absent()

    def picture_of(self, index: int) -> int:
        return self.samples.picture_of(index)

    def labels(self) -> np.ndarray | None:
        return self.samples.labels()

    def notes(self, readers: int) -> list[str]:
        return self.samples.notes(readers)

    def fingerprint(self) -> str | None:
        whole = self.samples.fingerprint()
        return None if whole is None else digest_of("class captions", whole, self.templates)

    def look_ahead(self, order: RunOrder, position: int) -> None:
        self.samples.look_ahead(order, position)

    def expect(self, indices: np.ndarray) -> None:
        self.samples.expect(indices)

    def order(self, seed: int, version: OrderVersion = ORDER) -> RunOrder:
        return self.samples.order(seed, version)

    def _of(self, label: int | None, name: str) -> tuple[str, ...]:
        if label is None:
            raise SampleError(f"{name}: it has no label", "empty")
        return self._captions[label]


def same_class(batches: Iterator[Batch]) -> Iterator[Batch]:
    """Batches of :class:`ClassCaptions` whose ``caption_ids`` are the classes."""
    with closing(batches):  # type: ignore[type-var]
        for batch in batches:
            yield replace(batch, caption_ids=batch.labels)
