"""Many texts in one row of bytes, which may lie in a file that is mapped.

A list of Python strings takes some 60 bytes a text beyond its characters, in every process.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import overload

import numpy as np
import pyarrow

__all__ = ["PackedTexts"]

_AT_ONCE = 1 << 16  # texts that are in memory at once, of all that are gone through
_ERRORS = "surrogateescape"  # names of files may be no UTF-8


class PackedTexts(Sequence[str]):
    """Texts by number.

    Args:
        text: uint8, all of them as UTF-8, one after the other.
        ends: int64 (N,), where each ends in ``text``.
    """

    def __init__(self, text: np.ndarray, ends: np.ndarray) -> None:
        self.text = text
        self.ends = ends

    @classmethod
    def pack(cls, texts: Iterable[str]) -> "PackedTexts":
        """Pack texts."""
        pieces = [text.encode("utf-8", _ERRORS) for text in texts]
        ends = np.cumsum([len(piece) for piece in pieces], dtype=np.int64)
        return cls(np.frombuffer(b"".join(pieces), np.uint8), ends)

    def chosen(self, numbers: np.ndarray) -> "PackedTexts":
        """Some of the texts, in the order of their numbers."""
        return PackedTexts.pack(self[number] for number in numbers.tolist())

    def between(self, first: int, end: int) -> "PackedTexts":
        """Those with numbers from ``first`` on, below ``end``; nothing is copied but where they
        end."""
        start = int(self.ends[first - 1]) if first else 0
        ends = self.ends[first:end] - start
        return PackedTexts(self.text[start : start + int(ends[-1] if len(ends) else 0)], ends)

    def check(self, what: str) -> None:
        """Raises ValueError: the parts are no texts of UTF-8, or end before they begin."""
        text, ends = self.text, self.ends
        if text.dtype != np.uint8 or text.ndim != 1 or ends.dtype != np.int64 or ends.ndim != 1:
            raise ValueError(f"{what} are no texts")
        steps = np.diff(ends, prepend=0, append=len(text))
        if bool((steps < 0).any()):
            raise ValueError(f"{what} end before they begin")
        text.tobytes().decode("utf-8")
        inner = ends[ends < len(text)]
        if bool((text[inner] & 0xC0 == 0x80).any()):
            raise ValueError(f"{what} end within a character")

    def encode(self) -> tuple[list[str], np.ndarray]:
        """The distinct texts, in the order of their first, and of each text the number of its own
        among them: int32 (N,)."""
        found = self.arrow().dictionary_encode()
        distinct = [value.decode("utf-8", _ERRORS) for value in found.dictionary.to_pylist()]
        return distinct, found.indices.to_numpy()

    def arrow(self) -> pyarrow.LargeBinaryArray:
        """The same for Arrow, which reads the bytes where they are."""
        offsets = np.concatenate([np.zeros(1, np.int64), self.ends])
        buffers = [None, pyarrow.py_buffer(offsets), pyarrow.py_buffer(self.text)]
        kind = pyarrow.large_binary()
        return pyarrow.LargeBinaryArray.from_buffers(kind, len(self), buffers)

    def hashes(self) -> np.ndarray:
        """A number of each text, int64 (N,): equal texts alike, others apart but by a rare chance;
        in this process alone."""
        return np.fromiter(map(hash, self), np.int64, len(self))

    def __len__(self) -> int:
        return len(self.ends)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            return [self[number] for number in range(*index.indices(len(self)))]
        if index < 0:
            index += len(self)
        if not 0 <= index < len(self):
            raise IndexError(f"there are {len(self)} texts; there is no number {index}")
        start = int(self.ends[index - 1]) if index else 0
        return self.text[start : int(self.ends[index])].tobytes().decode("utf-8", _ERRORS)

    def __iter__(self) -> Iterator[str]:
        for first in range(0, len(self), _AT_ONCE):
            ends = self.ends[first : first + _AT_ONCE].tolist()
            start = int(self.ends[first - 1]) if first else 0
            row, place = self.text[start : ends[-1]].tobytes(), 0
            for end in ends:
                yield row[place : end - start].decode("utf-8", _ERRORS)
                place = end - start

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence) or len(self) != len(other):
            return NotImplemented if not isinstance(other, Sequence) else False
        return all(one == another for one, another in zip(self, other, strict=True))

    __hash__ = None  # type: ignore[assignment]
