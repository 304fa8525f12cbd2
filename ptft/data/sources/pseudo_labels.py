"""Pictures without labels of their own, with those that a teacher gave them."""

import numpy as np

from ptft.data.hashing import digest_of
from ptft.data.sample import Part, Sample, SampleSet

__all__ = ["PseudoLabelled", "surest"]


class PseudoLabelled(Part):
    """Some of another set's samples, each with the class that it is said to be of; what the set
    itself says of classes, captions and boxes is left out.

    Args:
        samples: the whole set.
        indices: their numbers there, int64, ascending.
        said: their classes, int64, as many.
        classes: names of these.
    """

    def __init__(
        self, samples: SampleSet, indices: np.ndarray, said: np.ndarray, classes: list[str]
    ) -> None:
        super().__init__(samples, indices)
        self.classes, self.box_classes = classes, None
        self._said = said

    def __getitem__(self, index: int) -> Sample:
        sample = super().__getitem__(index)
        return Sample(sample.name, sample.picture, (), int(self._said[index]))

    def captions(self, index: int) -> tuple[str, ...]:
        return ()

    def labels(self) -> np.ndarray:
        return self._said

    def describe(self, index: int) -> tuple[tuple[str, ...], int]:
        return (), int(self._said[index])

    @property
    def labels_are(self) -> str:
        return ""

    def fingerprint(self) -> str | None:
        whole = super().fingerprint()
        return None if whole is None else digest_of("pseudo", whole, self._said.tobytes())


def surest(said_n: np.ndarray, sure_n: np.ndarray, keep: float) -> np.ndarray:
    """Choose of each class the surest: places, int64, ascending.

    The threshold of a class is the confidence of the last that is kept, so that each has its own
    (class-balanced self-training, Zou et al. 2018).

    Args:
        said_n: the class that each picture is said to be of.
        sure_n: how sure that is; of equals the first come first.
        keep: share of each class that is kept, rounded up.
    """
    kept = []
    for one in np.unique(said_n):
        places = np.flatnonzero(said_n == one)
        order = np.argsort(-sure_n[places], kind="stable")
        kept.append(places[order[: int(np.ceil(keep * len(places)))]])
    return np.sort(np.concatenate(kept)) if kept else np.empty(0, np.int64)
