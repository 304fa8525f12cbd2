"""A permutation that is computed where it is looked up, so that none of it need be in memory.

A number below ``count`` is two digits, of bases ``a`` and ``b``, ``a * b`` being just above it;
a random function of one digit is added to the other, in turns: the alternating Feistel network of
Black and Rogaway, "Ciphers with Arbitrary Finite Domains" (2002). What falls above ``count`` goes
through again until it falls below (their cycle walking): the same permutation, cut to what is
wanted. Fewer than one in ``a`` does.
"""

import math
from typing import TypeVar

import numpy as np

from ptft.data.hashing import hash_integers

__all__ = ["ShuffledNumbers"]

_TURNS = 8  # 4 make what no adversary with few questions tells from chance (Luby and Rackoff 1988)
_MASK = (1 << 64) - 1

_N = TypeVar("_N", int, np.ndarray)


class ShuffledNumbers:
    """A random permutation of ``range(count)`` by a key.

    Args:
        key: 64 bits.
        count: at least 1, below 2^62.
    """

    def __init__(self, key: int, count: int) -> None:
        self.count = count
        self._a = math.isqrt(count - 1) + 1
        self._b = -(-count // self._a)
        self._keys = [hash_integers(key, turn) for turn in range(_TURNS)]

    def __getitem__(self, place: int) -> int:
        """The number at one place."""
        number = self._once(place)
        while number >= self.count:
            number = self._once(number)
        return number

    def at(self, places: np.ndarray) -> np.ndarray:
        """The numbers at places: int64, of the places' shape."""
        numbers = self._once(places.astype(np.uint64))
        while (over := numbers >= self.count).any():
            numbers[over] = self._once(numbers[over])
        return numbers.astype(np.int64)

    def _once(self, number: _N) -> _N:
        high, low = number // self._b, number % self._b
        for turn, key in enumerate(self._keys):
            if turn % 2:
                low = (low + _below(high, key, self._b)) % self._b
            else:
                high = (high + _below(low, key, self._a)) % self._a
        return high * self._b + low


def _below(digit: _N, key: int, base: int) -> _N:
    """A random function of a digit, below ``base``, which is below 2^32: SplitMix64's finaliser."""
    state = digit ^ key
    state = (state ^ state >> 30) * 0xBF58476D1CE4E5B9 & _MASK
    state = (state ^ state >> 27) * 0x94D049BB133111EB & _MASK
    return ((state ^ state >> 31) >> 32) * base >> 32
