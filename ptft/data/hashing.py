"""Random numbers that are a pure function of their key, on every machine and library version.

Orders, draws and scenes are looked up rather than generated: any process can compute the one that
it needs without the ones before it, so nothing but a position has to be saved to go on exactly.
SplitMix64's finaliser (Steele, Lea, Flood 2014) over integers; no generator of numpy's, whose
streams may change between versions, is involved.
"""

import hashlib
from pathlib import Path

import numpy as np

__all__ = [
    "digest_of",
    "file_state",
    "first_of_permutation",
    "fraction",
    "hash_integers",
    "permutation",
    "text_id",
    "uniforms",
]

_MASK = (1 << 64) - 1
_GOLDEN = 0x9E3779B97F4A7C15  # 2^64 / golden ratio, SplitMix64's increment


def hash_integers(*keys: int) -> int:
    """Hash integers, whose order counts, to 64 bits: ``(1, 2)`` and ``(2, 1)`` differ."""
    state = len(keys)
    for key in keys:
        state = (state ^ (key & _MASK)) + _GOLDEN & _MASK
        state = (state ^ state >> 30) * 0xBF58476D1CE4E5B9 & _MASK
        state = (state ^ state >> 27) * 0x94D049BB133111EB & _MASK
        state ^= state >> 31
    return state


def uniforms(key: int, count: int) -> np.ndarray:
    """Draw ``count`` numbers in [0, 1) by ``key``, float64."""
    bits: np.ndarray = _stream(key, count) >> np.uint64(11)
    return bits * 2.0**-53


def permutation(key: int, count: int) -> np.ndarray:
    """Draw a uniformly random permutation of ``range(count)`` by ``key``, int64."""
    return np.argsort(_stream(key, count), kind="stable")


def first_of_permutation(key: int, count: int, limit: int, piece: int = 1 << 20) -> np.ndarray:
    """Which numbers come first in ``permutation(key, count)``: ``limit`` of them, ascending, int64.

    Memory is of ``limit`` and ``piece`` numbers, not of ``count``.
    """
    bits, numbers = np.empty(0, np.uint64), np.empty(0, np.int64)
    for first in range(0, count, piece):
        more = _stream(key, min(piece, count - first), first)
        below = np.arange(len(more))
        if 0 < limit <= len(bits):
            below = np.flatnonzero(more < bits.max())
        bits = np.concatenate([bits, more[below]])
        numbers = np.concatenate([numbers, first + below])
        if len(bits) > limit:  # no two are equal: the stream is a bijection of the numbers
            least = np.argpartition(bits, limit)[:limit]
            bits, numbers = bits[least], numbers[least]
    return np.sort(numbers)


def fraction(*keys: int) -> float:
    """Draw one number in [0, 1) by integers."""
    return (hash_integers(*keys) >> 11) * 2.0**-53


def text_id(text: str) -> int:
    """Number a text in 63 bits: equal texts alike, others apart but by a rare chance."""
    digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def digest_of(*parts: object) -> str:
    """Hash bytes and texts (anything else by ``str``) by sha256, each with its length before it."""
    digest = hashlib.sha256()
    for part in parts:
        data = part if isinstance(part, bytes) else str(part).encode("utf-8", "surrogatepass")
        digest.update(len(data).to_bytes(8, "big") + data)
    return digest.hexdigest()


def file_state(path: Path, name: str) -> tuple[str, int, int]:
    """A file by ``name``, its size in bytes and its time of change in ns; zeros where it is not."""
    try:
        state = path.stat()
    except OSError:
        return name, 0, 0
    return name, state.st_size, state.st_mtime_ns


def _stream(key: int, count: int, first: int = 0) -> np.ndarray:
    state = np.arange(first + 1, first + count + 1, dtype=np.uint64)
    state *= np.uint64(_GOLDEN)
    state += np.uint64(key & _MASK)
    shifted = state >> np.uint64(30)  # in place from here on: what is freed is seldom given back
    state ^= shifted
    state *= np.uint64(0xBF58476D1CE4E5B9)
    state ^= np.right_shift(state, np.uint64(27), out=shifted)
    state *= np.uint64(0x94D049BB133111EB)
    state ^= np.right_shift(state, np.uint64(31), out=shifted)
    return state
