"""Every picture twice in a row, so that a batch holds two views of each of its pictures.

What chance does to a picture is drawn by its position in the run, so the two views of one differ,
and nothing else of reading, ranks, workers or resuming has to know of them.
"""

from collections.abc import Iterator

import numpy as np

from ptft.data.reading.order import ORDER, OrderVersion, RunOrder
from ptft.data.sample import Part, Sample, SampleSet

__all__ = ["PairedOrder", "TwoViews"]


class TwoViews(Part):
    """Another set's samples, of which a run draws each twice in a row; labels, captions and boxes
    are left out.

    Its length is the number of pictures, so an epoch is as many views, of half of them.
    """

    def __init__(self, samples: SampleSet) -> None:
        super().__init__(samples, np.arange(len(samples)))
        self.classes = self.box_classes = None
        self.window, self.blocks = samples.window, samples.blocks
        self.resample = samples.resample

    def __getitem__(self, index: int) -> Sample:
        sample = self.samples[index]
        return Sample(sample.name, sample.picture, (), None)

    def captions(self, index: int) -> tuple[str, ...]:
        return ()

    def describe(self, index: int) -> tuple[tuple[str, ...], None]:
        return (), None

    def labels(self) -> None:
        return None

    def look_ahead(self, order: RunOrder, position: int) -> None:
        assert isinstance(order, PairedOrder)
        self.samples.look_ahead(order.pictures, position // 2)

    def order(self, seed: int, version: OrderVersion = ORDER) -> "PairedOrder":
        return PairedOrder(self.samples.order(seed, version))


class PairedOrder:
    """Position -> sample: positions 2p and 2p + 1 are at what ``pictures`` has at p.

    Args:
        pictures: the order of the pictures.
    """

    def __init__(self, pictures: RunOrder) -> None:
        self.pictures = pictures

    @property
    def seed(self) -> int:
        """As of the pictures' order."""
        return self.pictures.seed

    def __getitem__(self, position: int) -> int:
        return self.pictures[position // 2]

    def replacements(self, position: int) -> Iterator[int]:
        """The same for both views."""
        return self.pictures.replacements(position // 2)

    def coming(self, position: int) -> np.ndarray | None:
        """None here: the pictures' order announces its own."""
        return None
