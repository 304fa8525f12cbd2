"""Which sample comes at which position of a run, and with what chance.

A run is one long row of positions 0, 1, 2, ...; position ``p`` lies in epoch ``p // N``, and every
epoch visits each of the N samples once in an order of its own. Everything follows from the seed and
the position alone, so a run's state is one integer, whatever the number of workers and ranks.
"""

import math
from collections.abc import Iterator
from functools import lru_cache

import numpy as np

from ptft.data.hashing import mix, permutation

__all__ = ["Order", "rng_for"]

_ORDER, _BLOCKS, _REPLACE, _CHANCE = 0x6F72, 0x626C, 0x7265, 0x6368  # keep the draws apart
_TRIES = 1000  # replacements that are tried for one sample; N - 1 where the set is smaller


class Order:
    """Position -> sample.

    Args:
        count: number of samples N.
        seed: of the recipe.
        window: shuffle only within runs of this many samples, see ``SampleSet.window``.
        blocks: where pieces of the set begin, see ``SampleSet.blocks``; absent: windows are
            visited in the order of the set. An epoch's order takes 8 bytes a sample unless there
            is a window and no blocks.
    """

    def __init__(
        self, count: int, seed: int, window: int | None = None, blocks: np.ndarray | None = None
    ) -> None:
        self.count = count
        self.seed = seed
        self.window = count if window is None else min(window, count)
        self.blocks = blocks
        self._cached = lru_cache(maxsize=2)(self._shuffled)
        self._row = lru_cache(maxsize=2)(self._block_row)

    def __reduce__(self) -> tuple[type["Order"], tuple[object, ...]]:
        return Order, (self.count, self.seed, self.window, self.blocks)

    def __getitem__(self, position: int) -> int:
        """The sample at a position."""
        members, place = self._find(position)
        return int(members[place])

    def replacements(self, position: int) -> Iterator[int]:
        """Samples to try in place of the one at ``position``, in order, each once.

        They come from its window, so that a streamed set need not look elsewhere.
        """
        members, place = self._find(position)
        size = len(members)
        stride = 1 + mix(self.seed, _REPLACE, position) % max(size - 1, 1)
        while math.gcd(stride, size) > 1:
            stride += 1  # coprime: the walk passes through all before it returns
        for step in range(1, min(size, _TRIES + 1)):
            yield int(members[(place + step * stride) % size])

    def _find(self, position: int) -> tuple[np.ndarray, int]:
        """The window's samples in the epoch's order, and the place of a position among them."""
        epoch, within = divmod(position, self.count)
        number, place = divmod(within, self.window)
        return self._cached(epoch, number), place

    def _shuffled(self, epoch: int, number: int) -> np.ndarray:
        start = number * self.window
        stop = min(start + self.window, self.count)
        key = mix(self.seed, _ORDER, epoch, number)
        if self.blocks is None:
            return start + permutation(key, stop - start)
        return self._row(epoch)[start:stop][permutation(key, stop - start)]

    def _block_row(self, epoch: int) -> np.ndarray:
        """All samples, their blocks in the epoch's order."""
        assert self.blocks is not None
        ends = np.append(self.blocks[1:], self.count)
        order = permutation(mix(self.seed, _BLOCKS, epoch), len(self.blocks))
        return np.concatenate([np.arange(self.blocks[i], ends[i]) for i in order])


def rng_for(seed: int, position: int) -> np.random.Generator:
    """The chance that belongs to a position: for its augmentation."""
    return np.random.Generator(np.random.PCG64(mix(seed, _CHANCE, position)))
