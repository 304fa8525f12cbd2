"""A sample set that reads and prepares each picture once, for models that are measured often."""

from dataclasses import replace

from PIL import Image

from ptft.data import SampleSet
from ptft.data.sample import Sample
from ptft.preprocess.images import ImagePreprocess

__all__ = ["CachedSet"]


class CachedSet(SampleSet):
    """Keeps another set's pictures in memory as ``preprocess`` leaves them, at the model's size.

    Preprocessing them again changes nothing: neither does a resize to the same size nor a crop of
    everything.
    """

    def __init__(self, samples: SampleSet, preprocess: ImagePreprocess) -> None:
        self.samples = samples
        self.classes = samples.classes
        self.preprocess = preprocess
        self._kept: dict[int, Sample] = {}

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Sample:
        if index not in self._kept:
            sample = self.samples[index]
            pixels = self.preprocess.pixels(sample.decoded(self.preprocess.reading))
            self._kept[index] = replace(sample, picture=Image.fromarray(pixels))
        return self._kept[index]

    def name(self, index: int) -> str:
        return self.samples.name(index)

    def picture_of(self, index: int) -> int:
        return self.samples.picture_of(index)

    def describe(self, index: int) -> tuple[tuple[str, ...], int | None]:
        return self.samples.describe(index)

    def captions(self, index: int) -> tuple[str, ...]:
        return self.samples.captions(index)
