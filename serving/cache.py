"""Embeddings of what was asked for before, by the digest of its bytes: off, or bounded in bytes.

What is kept is what the tower gave: whoever sends the same bytes gets the same bits, and no tower
runs. A digest covers the model as well, and how it reads pictures. What was used longest ago goes
first.
"""

import hashlib
from collections import OrderedDict
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

__all__ = ["CacheEntry", "EmbeddingCache"]

Kind = Literal["image", "text"]

_OVERHEAD = 320  # bytes of an entry beside its values: two objects, a place in the table and order


@dataclass(frozen=True, slots=True)
class CacheEntry:
    """An entry.

    Attributes:
        embedding: (D,), not to be written to.
        tokens: of a text.
    """

    embedding: NDArray[np.float32]
    tokens: int


class EmbeddingCache:
    """All methods belong to one event loop, but for ``key``.

    Args:
        limit: bytes, those of Python's own objects included.
        model: what else decides an embedding: the model's digest, its precision, how JPEGs are
            read.
    """

    def __init__(self, limit: int, *model: str) -> None:
        self.limit = limit
        self.taken = 0
        self._start = hashlib.sha256(repr(model).encode())
        self._kept: OrderedDict[bytes, tuple[bytes, int]] = OrderedDict()

    def key(self, kind: Kind, data: bytes) -> bytes:
        """Of a picture's file, or a text's UTF-8."""
        digest = self._start.copy()
        digest.update(kind.encode() + b"\0")
        digest.update(data)
        return digest.digest()

    def get(self, key: bytes) -> CacheEntry | None:
        """What is kept under a key."""
        found = self._kept.get(key)
        if found is None:
            return None
        self._kept.move_to_end(key)
        return CacheEntry(np.frombuffer(found[0], np.float32), found[1])

    def put(self, key: bytes, embedding: NDArray[np.float32], tokens: int = 0) -> None:
        """Keep an embedding (D,), as far as there is room for any."""
        size = embedding.nbytes + len(key) + _OVERHEAD
        if size > self.limit or key in self._kept:
            return
        self._kept[key] = (embedding.astype(np.float32, copy=False).tobytes(), tokens)
        self.taken += size
        while self.taken > self.limit:
            oldest, (data, _) = self._kept.popitem(last=False)
            self.taken -= len(data) + len(oldest) + _OVERHEAD

    def __len__(self) -> int:
        return len(self._kept)
