"""Several sample sets in one run, each with a weight of its own.

A mixture is drawn in epochs of 4,096 positions. Each of them holds a whole number of draws of every
part, in an order of its own; a part's draws go on through that part's own order, so that it is read
as it would be alone. A run's state is still one integer, and nothing is left to chance: after any
mixture epoch every part has had its exact share.
"""

from collections.abc import Iterator, Sequence
from fractions import Fraction
from functools import lru_cache

import numpy as np

from ptft.data.hashing import digest_of, hash_integers, permutation
from ptft.data.label_sets import LabelSets
from ptft.data.reading.order import ORDER, OrderVersion, RunOrder
from ptft.data.sample import Sample, SampleSet
from ptft.errors import DataError, RecipeError

__all__ = ["EPOCH", "Joined", "Mixture", "MixtureOrder", "draws_of"]

EPOCH = 4096
"""Positions of a mixture epoch: shares of parts are exact to half of one in so many."""

_PART, _SLOTS = 0x7061, 0x736C  # keep the draws apart


class Joined(SampleSet):
    """The samples of several sets, one set after another.

    Args:
        parts: of one list of classes; those without classes may stand among them.
        names: of the parts, before the names of their samples; "" for none.

    Raises:
        DataError: two parts have different classes.
    """

    def __init__(self, parts: Sequence[SampleSet], names: Sequence[str]) -> None:
        self.parts = list(parts)
        self.names = list(names)
        self.firsts = np.cumsum([0, *(len(part) for part in parts)])
        self.classes = _common_classes(parts, names)
        self._label_firsts = [0] * len(self.parts)
        sets = [part.label_sets for part in parts if part.classes]
        if found := [one for one in sets if one is not None]:
            if len(found) < len(sets):
                raise DataError("data.labels: 'many' of some and 'one' of others; allowed: of all")
            self.label_sets = LabelSets.joined(found)
            lengths = [0 if one.label_sets is None else len(one.label_sets) for one in self.parts]
            self._label_firsts = np.cumsum([0, *lengths[:-1]]).tolist()

    def __len__(self) -> int:
        return int(self.firsts[-1])

    def __getitem__(self, index: int) -> Sample:
        part, within = self._find(index)
        sample = self.parts[part][within]
        label = self._numbered(part, sample.label)
        return Sample(self.name(index), sample.picture, sample.captions, label)

    def name(self, index: int) -> str:
        part, within = self._find(index)
        name = self.parts[part].name(within)
        return f"{self.names[part]}/{name}" if self.names[part] else name

    def captions(self, index: int) -> tuple[str, ...]:
        part, within = self._find(index)
        return self.parts[part].captions(within)

    @property
    def labels_are(self) -> str:
        return "; ".join(dict.fromkeys(part.labels_are for part in self.parts if part.labels_are))

    def absent(self) -> list[int]:
        found = [
            first + index
            for first, part in zip(self.firsts, self.parts, strict=False)
            for index in part.absent()
        ]
        return [int(index) for index in found]

    def picture_of(self, index: int) -> int:
        part, within = self._find(index)
        return hash_integers(_PART, part, self.parts[part].picture_of(within)) >> 1

    def describe(self, index: int) -> tuple[tuple[str, ...], int | None]:
        part, within = self._find(index)
        captions, label = self.parts[part].describe(within)
        return captions, self._numbered(part, label)

    def _numbered(self, part: int, label: int | None) -> int | None:
        return None if label is None else label + self._label_firsts[part]

    def fingerprint(self) -> str | None:
        prints = [part.fingerprint() for part in self.parts]
        return None if None in prints else digest_of("joined", *prints)

    def labels(self) -> np.ndarray | None:
        if self.classes is None:
            return None
        found = []
        for part, first in zip(self.parts, self._label_firsts, strict=True):
            labels = part.labels() if part.classes else np.full(len(part), -1, np.int64)
            if labels is None:
                return None
            found.append(np.where(labels >= 0, labels + first, -1))
        return np.concatenate(found)

    @property
    def in_order(self) -> bool:
        return any(part.in_order for part in self.parts)

    def _find(self, index: int) -> tuple[int, int]:
        if not 0 <= index < len(self):
            raise IndexError(f"there are {len(self)} samples; there is no number {index}")
        part = int(np.searchsorted(self.firsts, index, side="right")) - 1
        return part, index - int(self.firsts[part])


class Mixture(Joined):
    """Several sets that a run draws from by weights.

    Its length is the sum of the parts', so an epoch is as many draws; how often that passes through
    a part follows from the part's share and size.

    Args:
        parts, names: see ``Joined``.
        weights: above 0, of any scale.
        key: of the list of parts in the recipe, for messages.

    Raises:
        DataError: two parts have different classes.
        RecipeError: a part has less than one draw in a mixture epoch.
    """

    def __init__(
        self,
        parts: Sequence[SampleSet],
        names: Sequence[str],
        weights: Sequence[float],
        key: str = "data.parts",
    ) -> None:
        super().__init__(parts, names)
        self.draws = draws_of(weights, key)

    def notes(self, readers: int) -> list[str]:
        notes = []
        for number, (part, draws) in enumerate(zip(self.parts, self.draws, strict=True)):
            passes = len(self) * draws / EPOCH / len(part)
            notes.append(
                f"{self.names[number] or f'part {number}'}: {draws / EPOCH:.2%} of the draws, "
                f"{passes:.2f} times its {len(part):,} samples an epoch"
            )
        return [*notes, *(note for part in self.parts for note in part.notes(readers))]

    def look_ahead(self, order: RunOrder, position: int) -> None:
        assert isinstance(order, MixtureOrder)
        part, own = order.draw(position)
        self.parts[part].look_ahead(order.orders[part], own)

    def order(self, seed: int, version: OrderVersion = ORDER) -> "MixtureOrder":
        seeds = [hash_integers(seed, _PART, i) for i in range(len(self.parts))]
        orders = [part.order(own, version) for part, own in zip(self.parts, seeds, strict=True)]
        return MixtureOrder(orders, self.draws, self.firsts[:-1].tolist(), seed)


class MixtureOrder:
    """Position -> sample of a mixture.

    Position ``p`` lies in mixture epoch ``e = p // 4096``; where it is the ``j``-th of that epoch
    to go to part ``i``, it is position ``e * draws[i] + j`` of that part's own order.

    Args:
        orders: of the parts.
        draws: of each part in a mixture epoch.
        firsts: number of each part's first sample in the mixture.
        seed: of the recipe.
    """

    def __init__(
        self, orders: Sequence[RunOrder], draws: Sequence[int], firsts: Sequence[int], seed: int
    ) -> None:
        self.orders = list(orders)
        self.draws = list(draws)
        self.firsts = list(firsts)
        self.seed = seed
        self._slots = lru_cache(maxsize=2)(self._dealt)

    def __reduce__(self) -> tuple[type["MixtureOrder"], tuple[object, ...]]:
        return MixtureOrder, (self.orders, self.draws, self.firsts, self.seed)

    def __getitem__(self, position: int) -> int:
        part, own = self.draw(position)
        return self.firsts[part] + self.orders[part][own]

    def replacements(self, position: int) -> Iterator[int]:
        """Others of the same part."""
        part, own = self.draw(position)
        for other in self.orders[part].replacements(own):
            yield self.firsts[part] + other

    def coming(self, position: int) -> None:
        """None here: the orders of the parts announce their own."""

    def draw(self, position: int) -> tuple[int, int]:
        """The part that a position goes to, and the position in that part's own order."""
        epoch, slot = divmod(position, EPOCH)
        parts, ranks = self._slots(epoch)
        part = int(parts[slot])
        return part, epoch * self.draws[part] + int(ranks[slot])

    def _dealt(self, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """The part of each slot, and how many slots before it went to that part: ascending, so
        that a part is read on and never back."""
        hands = np.repeat(np.arange(len(self.draws)), self.draws)
        parts = hands[permutation(hash_integers(self.seed, _SLOTS, epoch), EPOCH)]
        ranks = np.empty(EPOCH, np.int64)
        for part, draws in enumerate(self.draws):
            ranks[parts == part] = np.arange(draws)
        return parts, ranks


def draws_of(weights: Sequence[float], key: str = "data.parts") -> list[int]:
    """How many of a mixture epoch's positions go to each part: the largest remainders make up what
    rounding down leaves, the earlier part first.

    Raises:
        RecipeError: a part would have none.
    """
    exact = [Fraction(weight) for weight in weights]
    quotas = [weight * EPOCH / sum(exact) for weight in exact]
    draws = [int(quota) for quota in quotas]
    by_remainder = sorted(range(len(draws)), key=lambda i: draws[i] - quotas[i])
    for i in by_remainder[: EPOCH - sum(draws)]:
        draws[i] += 1
    for i, count in enumerate(draws):
        if count == 0:
            raise RecipeError(
                f"{key}.{i}.weight: {weights[i]:g}: less than one draw in {EPOCH}; allowed: at "
                f"least {float(sum(exact) / EPOCH):.3g} beside the others"
            )
    return draws


def _common_classes(parts: Sequence[SampleSet], names: Sequence[str]) -> list[str] | None:
    first: tuple[str, list[str]] | None = None
    for number, part in enumerate(parts):
        if part.classes is None:
            continue
        who = names[number] or f"part {number}"
        if first is None:
            first = who, part.classes
        elif part.classes != first[1]:
            raise DataError(
                f"the classes differ: {first[0]} has {_shown(first[1])}, {who} has "
                f"{_shown(part.classes)}; data.classes of both: one list, in one order"
            )
    return None if first is None else first[1]


def _shown(classes: Sequence[str]) -> str:
    return f"{len(classes)} ({', '.join(classes[:3])}{', ...' if len(classes) > 3 else ''})"
