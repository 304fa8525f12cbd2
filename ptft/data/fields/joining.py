"""Which rows of a set show one picture, so that they can be one sample with several captions.

Captioning sets are published with a row for each caption. Read as a picture each, every row would
be the others' negative, and of five right answers to a picture four would count as wrong.
"""

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ptft.data.listing import begins_like_picture
from ptft.errors import SampleError
from ptft.speech import counted

__all__ = [
    "AUTO_BYTES",
    "TAIL",
    "Groups",
    "digest_picture",
    "first_digests",
    "first_rows",
    "group_rows",
    "repeated_numbers",
    "same_bytes",
    "too_large",
]

AUTO_BYTES = 1 << 30
"""Pictures of a set, together, up to which equal bytes are looked for unasked: some seconds."""

_LEAST = 24  # bytes; the smallest GIF of one pixel has 26

TAIL = 64  # bytes at the end of a picture: compressed data, which differs where pictures do


@dataclass(frozen=True)
class Groups:
    """The rows of each sample.

    Attributes:
        order: int64 (R,), rows, those of a sample side by side and in their own order.
        starts: int64 (N + 1,), where each sample's rows begin in ``order``; samples stand in the
            order of their first rows.
    """

    order: np.ndarray
    starts: np.ndarray

    def __len__(self) -> int:
        return len(self.starts) - 1

    def rows(self, index: int) -> list[int]:
        """Rows of a sample."""
        if not 0 <= index < len(self):
            raise IndexError(f"there are {len(self)} samples; there is no number {index}")
        found: list[int] = self.order[self.starts[index] : self.starts[index + 1]].tolist()
        return found

    @property
    def firsts(self) -> np.ndarray:
        """int64 (N,), the first row of each sample, ascending."""
        return self.order[self.starts[:-1]]


def group_rows(*keys: np.ndarray) -> Groups | None:
    """Group rows equal in all keys (int64 (R,) each) into samples; None where all differ."""
    order = np.lexsort(keys)  # stable: the rows of a sample in their own order
    new = np.zeros(len(order), bool)
    new[:1] = True
    for key in keys:
        ordered = key[order]
        new[1:] |= ordered[1:] != ordered[:-1]
    if new.all():
        return None
    starts = np.flatnonzero(new)
    counts = np.diff(np.append(starts, len(order)))
    by_first = np.argsort(order[starts], kind="stable")
    ends = np.cumsum(counts[by_first])
    moved = np.arange(len(order)) - np.repeat(ends - counts[by_first], counts[by_first])
    rows = order[np.repeat(starts[by_first], counts[by_first]) + moved]
    return Groups(rows, np.concatenate([[0], ends]).astype(np.int64))


def first_rows(keys: Iterable[object]) -> np.ndarray:
    """Find for each row the first with an equal key: int64 (R,); a key None equals nothing."""
    known: dict[object, int] = {}
    return np.array(
        [row if key is None else known.setdefault(key, row) for row, key in enumerate(keys)],
        np.int64,
    )


def repeated_numbers(numbers: np.ndarray) -> np.ndarray:
    """Rows, int64, ascending, whose number (of (R,), uint64) another row has too."""
    ordered = np.sort(numbers)
    alike = ordered[1:][ordered[1:] == ordered[:-1]]
    return np.flatnonzero(np.isin(numbers, alike)) if len(alike) else np.empty(0, np.int64)


def first_digests(digests: np.ndarray, rows: np.ndarray, count: int) -> np.ndarray:
    """Find for each of ``count`` rows the first with an equal digest: int64 (R,).

    Args:
        digests: uint8 (r, 16), of some rows; of all zeros where there is no picture.
        rows: int64 (r,), which; ascending. The others are known to equal none.
    """
    halves = np.ascontiguousarray(digests).view(np.uint64)
    some = halves.any(axis=1)
    (low, high), rows = halves[some].T, rows[some]
    found = np.arange(count)
    if len(rows):
        order = np.lexsort((high, low))  # stable: the first row of several comes first
        new = np.append(True, (np.diff(low[order]) != 0) | (np.diff(high[order]) != 0))
        found[rows[order]] = rows[order][new][np.cumsum(new) - 1]
    return found


def digest_picture(data: Any) -> bytes | None:
    """16 bytes that tell one picture's bytes (any buffer) from another's; None for what is no
    picture, and nobody's equal: a page that says "not found" may stand in many rows."""
    if len(data) < _LEAST or not begins_like_picture(bytes(data[:_LEAST])):
        return None
    return hashlib.blake2b(data, digest_size=16).digest()


def same_bytes(
    sizes: np.ndarray, tail: Callable[[int], bytes], whole: Callable[[int], bytes]
) -> np.ndarray:
    """Find for each row the first with the same bytes of a picture: int64 (R,).

    Only what is equal in size and in its last bytes is read whole.

    Args:
        sizes: of the pictures in bytes, int64 (R,); 0 for none.
        tail: the last ``TAIL`` bytes of a row's picture; may raise SampleError.
        whole: all of it; may raise SampleError.
    """
    found = np.arange(len(sizes))
    alike = _repeated(sizes.tolist(), np.flatnonzero(sizes >= _LEAST))
    tails = _read(tail, alike)
    alike = _repeated([(size, tails.get(row)) for row, size in enumerate(sizes.tolist())], alike)
    digests = _read(lambda row: digest_picture(whole(row)), alike)
    known: dict[bytes, int] = {}
    for row in alike:
        digest = digests.get(row)
        if digest is not None:
            found[row] = known.setdefault(digest, row)
    return found


def too_large(size: int, *, more: bool = False) -> str:
    """Why equal pictures were not looked for in a set of so many bytes, or of more."""
    return (
        f"pictures of {'more than ' * more}{size / 2**30:.1f} GiB: equal ones are not looked for; "
        "data.join: bytes does, data.picture_id names a field that tells"
    )


def _repeated(keys: Sequence[object], rows: Iterable[int]) -> list[int]:
    """Those of some rows whose key another of them has too."""
    counts: dict[object, int] = {}
    chosen = [int(row) for row in rows]
    for row in chosen:
        counts[keys[row]] = counts.get(keys[row], 0) + 1
    return [row for row in chosen if counts[keys[row]] > 1]


def _read(read: Callable[[int], bytes | None], rows: Sequence[int]) -> dict[int, bytes | None]:
    """What can be read of some rows; a picture that cannot is nobody's equal."""
    found: dict[int, bytes | None] = {}
    for row in counted(rows, "comparing pictures", len(rows)):
        try:
            found[row] = read(row)
        except SampleError:
            continue
    return found
