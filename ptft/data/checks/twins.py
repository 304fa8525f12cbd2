"""Pictures that are there more than once, byte for byte: in a split, and where it is learned from.

A picture that training has too makes a figure better than it should be; one that stands in two
classes teaches neither.
"""

from dataclasses import dataclass

from ptft.data.checks.survey import digests
from ptft.data.held_out import groups_of
from ptft.data.sample import SampleSet

__all__ = ["KnownGroups", "KnownPictures", "Twins"]

_VAL, _TEST = "data.val", "data.test"


@dataclass(frozen=True)
class Twins:
    """What was found of a split.

    Attributes:
        compared: pictures of it that were held against others.
        inside: samples whose picture an earlier sample of the split has; the first, in words.
        torn: those of them that are of another class than that sample; the first, in words.
        shared: samples whose picture a training set has, or what a model is chosen by; the first,
            in words.
        where: that split.
    """

    compared: int = 0
    inside: tuple[int, str] = (0, "")
    torn: tuple[int, str] = (0, "")
    shared: tuple[int, str] = (0, "")
    where: str = ""


class KnownPictures:
    """The pictures of one split after another, by their digests."""

    def __init__(self) -> None:
        self._learned: dict[bytes, tuple[str, str]] = {}  # digest -> split and name
        self._chosen_by: dict[bytes, tuple[str, str]] = {}  # likewise, of data.val

    def add(self, samples: SampleSet, label: str, *, learned: bool, every: bool) -> Twins:
        """Find the equal pictures within a split, and between it and what is learned from.

        Args:
            samples: of the split; a set that is read in order is left alone.
            label: of the split, for people.
            learned: it is learned from, so that later splits are held against it; ``data.test`` is
                held against ``data.val`` too, by which a model is chosen.
            every: whatever the size of the pictures, see :func:`ptft.data.checks.survey.digests`.
        """
        if samples.in_order:
            return Twins()
        classes = samples.labels()
        own: dict[bytes, int] = {}  # digest -> the first sample that has it
        inside, torn, shared = _Count(), _Count(), _Count()
        compared, where = 0, ""
        for index, digest in digests(samples, every=every):
            compared += 1
            first = own.setdefault(digest, index)
            if first != index:
                words = f"{samples.name(index)} is {samples.name(first)}"
                inside.add(words)
                if classes is not None and classes[index] != classes[first]:
                    torn.add(f"{words}, {_name(samples, index)} and {_name(samples, first)}")
            if learned:
                self._learned.setdefault(digest, (label, samples.name(index)))
                continue
            twin = self._learned.get(digest)
            if label == _VAL:
                self._chosen_by.setdefault(digest, (label, samples.name(index)))
            elif label == _TEST:
                twin = twin or self._chosen_by.get(digest)
            if twin is not None:
                shared.add(f"{samples.name(index)} is {twin[1]}")
                where = where or twin[0]
        return Twins(compared, inside.pair, torn.pair, shared.pair, where)


class KnownGroups:
    """The groups (``data.group``) of what is learned from."""

    def __init__(self) -> None:
        self._learned: dict[str, str] = {}  # group -> split

    def add(self, samples: SampleSet, label: str, split: str) -> tuple[int, str, str]:
        """How many samples of a split are of groups that are learned from; the first such group,
        and where it is."""
        groups = groups_of(samples) or []
        if split == "train":
            self._learned |= {group: label for group in groups if group is not None}
            return 0, "", ""
        shared = [group for group in groups if group is not None and group in self._learned]
        return (len(shared), shared[0], self._learned[shared[0]]) if shared else (0, "", "")


class _Count:
    """How many, and the first one in words."""

    def __init__(self) -> None:
        self.pair = (0, "")

    def add(self, words: str) -> None:
        self.pair = (self.pair[0] + 1, self.pair[1] or words)


def _name(samples: SampleSet, index: int) -> str:
    labels = samples.labels()
    number = -1 if labels is None else int(labels[index])
    if not samples.classes or number < 0:
        return "no class"
    return ", ".join(map(repr, samples.label_names(number))) or "no class"
