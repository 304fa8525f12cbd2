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

__all__ = [
    "AUTO_BYTES",
    "TAIL",
    "Groups",
    "digest_picture",
    "first_rows",
    "group_rows",
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
    columns = np.stack(keys, axis=1)
    _, first, inverse, counts = np.unique(
        columns, axis=0, return_index=True, return_inverse=True, return_counts=True
    )
    if len(first) == len(columns):
        return None
    by_first = np.argsort(first, kind="stable")
    place = np.empty_like(by_first)
    place[by_first] = np.arange(len(by_first))
    order = np.argsort(place[inverse.reshape(-1)], kind="stable")
    return Groups(order, np.concatenate([[0], np.cumsum(counts[by_first])]).astype(np.int64))


def first_rows(keys: Iterable[object]) -> np.ndarray:
    """Find for each row the first with an equal key: int64 (R,); a key None equals nothing."""
    known: dict[object, int] = {}
    return np.array(
        [row if key is None else known.setdefault(key, row) for row, key in enumerate(keys)],
        np.int64,
    )


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


def too_large(size: int) -> str:
    """Why equal pictures were not looked for in a set of so many bytes."""
    return (
        f"pictures of {size / 2**30:.1f} GiB: equal ones are not looked for; data.join: bytes "
        "does, data.picture_id names a field that tells"
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
    for row in rows:
        try:
            found[row] = read(row)
        except SampleError:
            continue
    return found
