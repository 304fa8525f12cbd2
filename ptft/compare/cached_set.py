"""A sample set that reads and prepares each picture once, for models that are measured often."""

from dataclasses import replace

from PIL import Image

from ptft.data import SampleSet
from ptft.data.sample import Sample
from ptft.preprocess.images import ImagePreprocess

__all__ = ["CachedSet", "Room"]

_BYTES = 3 * 2**27
"""Of the pictures that a job keeps: 2,000 at 224 pixels. What does not fit is read again each time,
as an evaluation elsewhere reads it, so that a job's memory does not grow with its data."""


class Room:
    """What the sets of a process may keep together.

    Attributes:
        left: bytes.
    """

    def __init__(self, left: int = _BYTES) -> None:
        self.left = left

    def take(self, wanted: int) -> bool:
        """Whether there is room for so many bytes, which are then taken."""
        if wanted > self.left:
            return False
        self.left -= wanted
        return True


class CachedSet(SampleSet):
    """Keeps another set's pictures in memory as ``preprocess`` leaves them, at the model's size, as
    far as there is room.

    Preprocessing them again changes nothing: neither does a resize to the same size nor a crop of
    everything.
    """

    def __init__(
        self, samples: SampleSet, preprocess: ImagePreprocess, room: Room | None = None
    ) -> None:
        self.samples = samples
        self._room = room or Room()
        self.classes, self.label_sets = samples.classes, samples.label_sets
        self.preprocess = preprocess
        self._kept: dict[int, Sample] = {}

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Sample:
        if (kept := self._kept.get(index)) is not None:
            return kept
        sample = self.samples[index]
        pixels = self.preprocess.pixels(sample.decoded(self.preprocess.reading))
        sample = replace(sample, picture=Image.fromarray(pixels))
        if self._room.take(pixels.nbytes // 3 * 4):  # Pillow has four bytes a pixel
            self._kept[index] = sample
        return sample

    def name(self, index: int) -> str:
        return self.samples.name(index)

    def picture_of(self, index: int) -> int:
        return self.samples.picture_of(index)

    def describe(self, index: int) -> tuple[tuple[str, ...], int | None]:
        return self.samples.describe(index)

    def captions(self, index: int) -> tuple[str, ...]:
        return self.samples.captions(index)
