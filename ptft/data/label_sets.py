"""Which labels a sample has, where it may have several: each distinct set once, by a number.

A sample's label is then the number of its set, so that orders, draws and batches carry one integer
a sample as they do for one class; who learns or measures asks here for the classes in it.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

__all__ = ["LabelSets"]


@dataclass(frozen=True)
class LabelSets:
    """K distinct sets of classes.

    Attributes:
        members: int32 (M,), the classes of all sets, one set after another, ascending in each.
        starts: int64 (K + 1,), where each set begins.
        classes: C, of how many classes.
    """

    members: np.ndarray
    starts: np.ndarray
    classes: int

    @classmethod
    def of(cls, sets: Iterable[Sequence[int]], classes: int) -> "LabelSets":
        """Of sets in the order of their numbers."""
        listed = [sorted(one) for one in sets]
        members = np.array([member for one in listed for member in one], np.int32)
        starts = np.cumsum([0, *map(len, listed)]).astype(np.int64)
        return cls(members, starts, classes)

    def __len__(self) -> int:
        return len(self.starts) - 1

    def __getitem__(self, number: int) -> list[int]:
        found: list[int] = self.members[self.starts[number] : self.starts[number + 1]].tolist()
        return found

    def multi_hot(self, labels_n: np.ndarray) -> np.ndarray:
        """Numbers of sets (N,) -> bool (N, C), which classes are in each; none of -1."""
        found = np.zeros((len(labels_n), self.classes), bool)
        rows = np.flatnonzero(labels_n >= 0)
        numbers = labels_n[rows]
        counts = self.starts[numbers + 1] - self.starts[numbers]
        within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        places = np.repeat(self.starts[numbers], counts) + within
        found[np.repeat(rows, counts), self.members[places]] = True
        return found

    def counts(self, labels_n: np.ndarray) -> np.ndarray:
        """Numbers of sets (N,) -> int64 (C,), how many of them have each class."""
        times_k = np.bincount(labels_n[labels_n >= 0], minlength=len(self))
        times_m = np.repeat(times_k, np.diff(self.starts))
        counts_c: np.ndarray = np.bincount(
            self.members, weights=times_m, minlength=self.classes
        ).astype(np.int64)
        return counts_c

    def rarest(self, labels_n: np.ndarray) -> np.ndarray:
        """Numbers of sets (N,) -> int64 (N,), of each the class in it that the fewest have; C of an
        empty set, -1 of -1."""
        counts_c = self.counts(labels_n)
        rarest_k = np.array(
            [
                min(own, key=lambda member: (counts_c[member], member)) if own else self.classes
                for own in map(self.__getitem__, range(len(self)))
            ],
            np.int64,
        )
        return np.where(labels_n >= 0, np.append(rarest_k, -1)[labels_n], -1)

    @classmethod
    def joined(cls, parts: Sequence["LabelSets"]) -> "LabelSets":
        """The sets of several, one after another: those of part p count from the sum of the lengths
        before it."""
        offsets = np.cumsum([0, *(len(part.members) for part in parts)])
        starts = [part.starts[:-1] + first for part, first in zip(parts, offsets, strict=False)]
        members = np.concatenate([part.members for part in parts])
        return cls(members, np.append(np.concatenate(starts), offsets[-1]), parts[0].classes)
