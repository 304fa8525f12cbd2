"""Which sample comes at which position of a run, and with what chance.

A run is one long row of positions 0, 1, 2, ...; position ``p`` lies in epoch ``p // N``, and every
epoch visits each of the N samples once in an order of its own. Everything follows from the seed and
the position alone, so a run's state is one integer, whatever the number of workers and ranks.

What is shuffled together is an array of at most 2^20 numbers; of more, each is computed where it is
looked up, so that no process holds an epoch. Version 1 held one of any length: runs that began with
it go on with it.
"""

import math
from collections.abc import Iterator
from functools import lru_cache
from typing import Literal, Protocol

import numpy as np

from ptft.data.hashing import hash_integers, permutation
from ptft.data.mapped import shared
from ptft.data.shuffled import ShuffledNumbers

__all__ = ["MOST", "ORDER", "BalancedOrder", "Order", "OrderVersion", "RunOrder", "rng_for"]

OrderVersion = Literal[1, 2]
"""Of the rules by which a run's order follows from its seed; they differ beyond 2^20 samples."""

ORDER: OrderVersion = 2
"""That of runs which begin now."""

MOST = 1 << 20
"""Numbers of a permutation that is an array, 4 bytes each; those of a larger one are computed."""

_FEW = 64  # ... of one of very many; fewer numbers are too few for what is computed to be even
_AHEAD = 1024  # numbers that are computed at once: 0.1 us each, one alone 3

_AT_ONCE = 1 << 16  # places that are looked up at once

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
            visited in the order of the set.
        redraw: draw with replacement: at each position any of its window, by the seed and the
            position.
        version: of the order.
        most: samples that are shuffled together by an array, in version 2; absent: ``MOST``.
    """

    def __init__(
        self,
        count: int,
        seed: int,
        window: int | None = None,
        blocks: np.ndarray | None = None,
        redraw: bool = False,
        version: OrderVersion = ORDER,
        most: int | None = None,
    ) -> None:
        self.count = count
        self.seed = seed
        self.window = count if window is None else min(window, count)
        self.blocks = blocks
        self.redraw = redraw
        self.version = version
        self.most = MOST if most is None else most
        self._cached = lru_cache(maxsize=3)(self._members)
        self._coming = lru_cache(maxsize=1)(self._two_windows)
        self._row = lru_cache(maxsize=2)(self._block_row)

    def __reduce__(self) -> tuple[type["Order"], tuple[object, ...]]:
        about = (self.window, self.blocks, self.redraw, self.version, self.most)
        return Order, (self.count, self.seed, *about)

    def __getitem__(self, position: int) -> int:
        """The sample at a position."""
        members, place = self._find(position)
        if isinstance(members, _Computed) and not self.redraw:
            return members.next(place)
        return int(members[place])

    def replacements(self, position: int) -> Iterator[int]:
        """Samples to try in place of the one at ``position``, in order, each once.

        They come from its window, so that a streamed set need not look elsewhere.
        """
        members, place = self._find(position)
        for other in _walk(hash_integers(self.seed, _REPLACE, position), place, len(members)):
            yield int(members[other])

    def coming(self, position: int) -> np.ndarray | None:
        """The samples of the position's window, and of the next; of windows that are no arrays the
        first of each piece that reaches into them."""
        if self.blocks is None:
            return None
        epoch, within = divmod(position, self.count)
        return self._coming(epoch, within // self.window)

    def _two_windows(self, epoch: int, number: int) -> np.ndarray:
        last = (number + 1) * self.window >= self.count
        following = (epoch + 1, 0) if last else (epoch, number + 1)
        return np.concatenate([self._reached(epoch, number), self._reached(*following)])

    def _reached(self, epoch: int, number: int) -> np.ndarray:
        members = self._cached(epoch, number)
        if not isinstance(members, _Computed):
            return members
        start = number * self.window
        return self._row(epoch).pieces(start, start + len(members))

    def _find(self, position: int) -> tuple["np.ndarray | _Computed", int]:
        """The window's samples in the epoch's order, and the place of a position among them."""
        epoch, within = divmod(position, self.count)
        number, place = divmod(within, self.window)
        members = self._cached(epoch, number)
        if self.redraw:
            place = hash_integers(self.seed, _DRAW, position) * len(members) >> 64
        return members, place

    def _members(self, epoch: int, number: int) -> "np.ndarray | _Computed":
        start = number * self.window
        size = min(start + self.window, self.count) - start
        key = hash_integers(self.seed, _ORDER, epoch, number)
        row = None if self.blocks is None else self._row(epoch)
        if self.version > 1 and size > self.most:
            return _Computed(key, size, start, row)
        places = permutation(key, size)
        places += start
        if row is not None:
            for first in range(0, size, _AT_ONCE):
                places[first : first + _AT_ONCE] = row.samples(places[first : first + _AT_ONCE])
        return _narrowed(places, self.count)

    def _block_row(self, epoch: int) -> "_BlockRow":
        assert self.blocks is not None
        order = permutation(hash_integers(self.seed, _BLOCKS, epoch), len(self.blocks))
        return _BlockRow(self.blocks, order, self.count)


class _BlockRow:
    """All samples, their blocks in the epoch's order."""

    def __init__(self, blocks: np.ndarray, order: np.ndarray, count: int) -> None:
        sizes = np.diff(blocks, append=count)[order]
        self._ends = np.cumsum(sizes)
        self._moves = blocks[order] - (self._ends - sizes)  # from a place of the row to its sample

    def samples(self, places: np.ndarray) -> np.ndarray:
        """The samples at places of the row, int64."""
        found: np.ndarray = places + self._moves[self._ends.searchsorted(places, side="right")]
        return found

    def pieces(self, start: int, stop: int) -> np.ndarray:
        """A sample of each block that lies in ``start:stop`` of the row, in the row's order."""
        first, last = self._ends.searchsorted([start, stop - 1], side="right").tolist()
        return self.samples(np.append(start, self._ends[first:last]))


class _Computed:
    """The samples of a window in the epoch's order, none of them kept."""

    def __init__(self, key: int, size: int, start: int, row: _BlockRow | None) -> None:
        self._numbers = ShuffledNumbers(key, size)
        self._start, self._row = start, row
        self._first = -1
        self._some = np.empty(0, np.int64)

    def __len__(self) -> int:
        return self._numbers.count

    def __getitem__(self, place: int) -> int:
        number = self._start + self._numbers[place]
        return number if self._row is None else int(self._row.samples(np.array([number]))[0])

    def next(self, place: int) -> int:
        """The sample at a place, the ones behind it being asked for soon."""
        if not 0 <= place - self._first < len(self._some):
            self._first = place - place % _AHEAD
            places = np.arange(self._first, min(self._first + _AHEAD, len(self)))
            numbers = self._start + self._numbers.at(places)
            self._some = numbers if self._row is None else self._row.samples(numbers)
        return int(self._some[place - self._first])


class BalancedOrder:
    """Position -> sample, every class equally often: each comes once in a round, in an order of the
    round's own, and its samples take turns. Samples without a class never come.

    Args:
        labels: int64 (N,), -1 for none; at least one is there.
        seed: of the recipe.
        version: of the order.
        members: samples with a class, by class, where somebody has sorted them already.
        most: samples of a class that are shuffled by an array; absent: by how many there are.
    """

    def __init__(
        self,
        labels: np.ndarray,
        seed: int,
        version: OrderVersion = ORDER,
        members: np.ndarray | None = None,
        most: int | None = None,
    ) -> None:
        self.labels = labels
        self.seed = seed
        self.version = version
        if members is None:
            members = shared(np.argsort(labels, kind="stable")[int((labels < 0).sum()) :])
        self._members = members
        starts = np.flatnonzero(np.diff(labels[members])) + 1
        self._groups: list[np.ndarray] = np.split(self._members, starts)
        # orders of all classes are in use at once: together they would be as large as the set
        self._most = most or (min(_FEW, MOST) if len(labels) > MOST else MOST)
        self._orders: dict[int, Order] = {}
        self._round = lru_cache(maxsize=2)(self._shuffled)

    def __reduce__(self) -> tuple[type["BalancedOrder"], tuple[object, ...]]:
        return BalancedOrder, (self.labels, self.seed, self.version, self._members, self._most)

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
            seed, count = (
                hash_integers(self.seed, _CLASS, _ORDER, number),
                len(self._groups[number]),
            )
            self._orders[number] = Order(count, seed, version=self.version, most=self._most)
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
