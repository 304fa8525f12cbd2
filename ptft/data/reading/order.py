"""Which sample comes at which position of a run, and with what chance.

A run is one long row of positions 0, 1, 2, ...; position ``p`` lies in epoch ``p // N``, and every
epoch visits each of the N samples once in an order of its own. Everything follows from the seed and
the position alone, so a run's state is one integer, whatever the number of workers and ranks.
"""

import math
from collections.abc import Iterator
from functools import lru_cache
from typing import Protocol

import numpy as np

from ptft.data.hashing import hash_integers, permutation

__all__ = ["BalancedOrder", "Order", "RunOrder", "rng_for"]

_ORDER, _BLOCKS, _REPLACE, _CHANCE = 0x6F72, 0x626C, 0x7265, 0x6368  # keep the draws apart
_DRAW, _CLASS = 0x6472, 0x636C
_TRIES = 1000  # replacements that are tried for one sample; N - 1 where the set is smaller


class RunOrder(Protocol):
    """Position -> sample, whatever the rule.

    Attributes:
        seed: of the recipe, for whatever else is drawn at a position.
    """

    @property
    def seed(self) -> int: ...

    def __getitem__(self, position: int) -> int:
        """The sample at a position."""

    def replacements(self, position: int) -> Iterator[int]:
        """Samples to try in place of the one at ``position``, in order."""

    def coming(self, position: int) -> np.ndarray | None:
        """Samples that are read about ``position`` and next, in order, where they come in windows
        of pieces; the same array while nothing changes."""


class Order:
    """Position -> sample, each once an epoch.

    Args:
        count: number of samples N.
        seed: of the recipe.
        window: shuffle only within runs of this many samples, see ``SampleSet.window``.
        blocks: where pieces of the set begin, see ``SampleSet.blocks``; absent: windows are
            visited in the order of the set. An epoch's order takes 4 bytes a sample (8 from 2^32
            samples on) unless there is a window and no blocks.
        redraw: draw with replacement: at each position any of its window, by the seed and the
            position.
    """

    def __init__(
        self,
        count: int,
        seed: int,
        window: int | None = None,
        blocks: np.ndarray | None = None,
        redraw: bool = False,
    ) -> None:
        self.count = count
        self.seed = seed
        self.window = count if window is None else min(window, count)
        self.blocks = blocks
        self.redraw = redraw
        self._cached = lru_cache(maxsize=3)(self._shuffled)
        self._coming = lru_cache(maxsize=1)(self._two_windows)
        self._row = lru_cache(maxsize=2)(self._block_row)

    def __reduce__(self) -> tuple[type["Order"], tuple[object, ...]]:
        return Order, (self.count, self.seed, self.window, self.blocks, self.redraw)

    def __getitem__(self, position: int) -> int:
        """The sample at a position."""
        members, place = self._find(position)
        return int(members[place])

    def replacements(self, position: int) -> Iterator[int]:
        """Samples to try in place of the one at ``position``, in order, each once.

        They come from its window, so that a streamed set need not look elsewhere.
        """
        members, place = self._find(position)
        for other in _walk(hash_integers(self.seed, _REPLACE, position), place, len(members)):
            yield int(members[other])

    def coming(self, position: int) -> np.ndarray | None:
        """The samples of the position's window, and of the next."""
        if self.blocks is None:
            return None
        epoch, within = divmod(position, self.count)
        return self._coming(epoch, within // self.window)

    def _two_windows(self, epoch: int, number: int) -> np.ndarray:
        last = (number + 1) * self.window >= self.count
        following = (epoch + 1, 0) if last else (epoch, number + 1)
        return np.concatenate([self._cached(epoch, number), self._cached(*following)])

    def _find(self, position: int) -> tuple[np.ndarray, int]:
        """The window's samples in the epoch's order, and the place of a position among them."""
        epoch, within = divmod(position, self.count)
        number, place = divmod(within, self.window)
        members = self._cached(epoch, number)
        if self.redraw:
            place = hash_integers(self.seed, _DRAW, position) * len(members) >> 64
        return members, place

    def _shuffled(self, epoch: int, number: int) -> np.ndarray:
        return _narrowed(self._order(epoch, number), self.count)

    def _order(self, epoch: int, number: int) -> np.ndarray:
        start = number * self.window
        stop = min(start + self.window, self.count)
        key = hash_integers(self.seed, _ORDER, epoch, number)
        if self.blocks is None:
            return start + permutation(key, stop - start)
        return self._row(epoch)[start:stop][permutation(key, stop - start)]

    def _block_row(self, epoch: int) -> np.ndarray:
        """All samples, their blocks in the epoch's order."""
        assert self.blocks is not None
        ends = np.append(self.blocks[1:], self.count)
        order = permutation(hash_integers(self.seed, _BLOCKS, epoch), len(self.blocks))
        row = np.concatenate([np.arange(self.blocks[i], ends[i]) for i in order])
        return _narrowed(row, self.count)


class BalancedOrder:
    """Position -> sample, every class equally often: each comes once in a round, in an order of the
    round's own, and its samples take turns. Samples without a class never come.

    Args:
        labels: int64 (N,), -1 for none; at least one is there.
        seed: of the recipe.
    """

    def __init__(self, labels: np.ndarray, seed: int) -> None:
        self.labels = labels
        self.seed = seed
        by_class = np.argsort(labels, kind="stable")
        self._members = by_class[int((labels < 0).sum()) :]
        _, starts = np.unique(labels[self._members], return_index=True)
        self._groups: list[np.ndarray] = np.split(self._members, starts[1:])
        self._orders: dict[int, Order] = {}
        self._round = lru_cache(maxsize=2)(self._shuffled)

    def __reduce__(self) -> tuple[type["BalancedOrder"], tuple[np.ndarray, int]]:
        return BalancedOrder, (self.labels, self.seed)

    def __getitem__(self, position: int) -> int:
        number, turn = self._find(position)
        return int(self._groups[number][self._order(number)[turn]])

    def replacements(self, position: int) -> Iterator[int]:
        """Others of the class, then any: a class may have nothing else to give."""
        number, turn = self._find(position)
        for other in self._order(number).replacements(turn):
            yield int(self._groups[number][other])
        key = hash_integers(self.seed, _REPLACE, position)
        start = key % len(self._members)
        for other in [start, *_walk(key, start, len(self._members))]:
            if self.labels[self._members[other]] != self.labels[self._groups[number][0]]:
                yield int(self._members[other])

    def coming(self, position: int) -> None:
        """A set that is balanced is read freely."""

    def _find(self, position: int) -> tuple[int, int]:
        """The group whose turn it is, and how often it was before."""
        turn, place = divmod(position, len(self._groups))
        return int(self._round(turn)[place]), turn

    def _shuffled(self, turn: int) -> np.ndarray:
        return permutation(hash_integers(self.seed, _CLASS, turn), len(self._groups))

    def _order(self, number: int) -> Order:
        if number not in self._orders:
            seed = hash_integers(self.seed, _CLASS, _ORDER, number)
            self._orders[number] = Order(len(self._groups[number]), seed)
        return self._orders[number]


def _narrowed(numbers: np.ndarray, count: int) -> np.ndarray:
    """Numbers below ``count``, in as few bytes as hold them."""
    return numbers.astype(np.uint32) if count <= 1 << 32 else numbers


def _walk(key: int, place: int, size: int) -> Iterator[int]:
    """Other places of ``size``, each once, the first ``_TRIES`` of them."""
    stride = 1 + key % max(size - 1, 1)
    while math.gcd(stride, size) > 1:
        stride += 1  # coprime: the walk passes through all before it returns
    for step in range(1, min(size, _TRIES + 1)):
        yield (place + step * stride) % size


def rng_for(seed: int, position: int) -> np.random.Generator:
    """The chance that belongs to a position: for its augmentation."""
    return np.random.Generator(np.random.PCG64(hash_integers(seed, _CHANCE, position)))
