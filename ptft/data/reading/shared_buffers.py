"""Buffers in shared memory for the pictures of batches, used again when a batch is let go.

Fresh shared memory costs a tenth of a millisecond for a picture of 224 pixels, a tenth of reading
it: the kernel clears each page. Here a worker writes to a buffer that is shared once and for all.
The tensor that is handed out is the buffer itself, and holds it until neither it nor a view of it
is left; whoever keeps batches for long makes later ones take fresh memory, and nothing worse.
"""

import weakref
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch

from ptft.data.boxes.read import BoxReader
from ptft.data.reading.batch import Batch
from ptft.data.reading.read import TrainReader

__all__ = ["SharedBuffers", "SharedReader"]

_MOST_BYTES = 2 << 30  # of all buffers; larger batches take fresh memory, which is then no matter

Job = tuple[range, int | None]
"""Positions of a run, and the buffer for their pictures if there was a free one."""


class SharedBuffers:
    """Places in shared memory, each for the pictures (B, H, W, 3) of one batch.

    Args:
        count: of buffers; as many as batches are read ahead or in use at once.
        shape: of a batch's pictures, (B, H, W, 3).
    """

    def __init__(self, count: int, shape: tuple[int, int, int, int]) -> None:
        fits = count * torch.Size(shape).numel() <= _MOST_BYTES
        self.pictures = [
            torch.empty(shape, dtype=torch.uint8).share_memory_()
            for _ in range(count if fits else 0)
        ]
        self._free = deque(range(len(self.pictures)))

    def assign(self, jobs: Iterable[range]) -> "_Assigned":
        """Pair each job, when it is given out, with a free buffer, or None."""
        return _Assigned(jobs, self._free)

    def receive(self, read: tuple[Batch, int | None]) -> Batch:
        """Join what a :class:`SharedReader` gave with the pictures in its buffer."""
        batch, buffer = read
        if buffer is None:
            return batch
        rows = self.pictures[buffer].numpy()[
            :
        ]  # an object of its own, which the tensor keeps alive
        weakref.finalize(rows, self._free.append, buffer).atexit = False
        return replace(batch, images=torch.from_numpy(rows))


@dataclass(frozen=True)
class SharedReader:
    """Reads batches whose pictures stay in their buffers."""

    reader: TrainReader | BoxReader
    buffers: SharedBuffers

    def read(self, job: Any) -> tuple[Batch, int | None]:
        positions, buffer = job
        if buffer is None:
            return self.reader.read(positions), None
        batch = self.reader.read(positions, self.buffers.pictures[buffer])
        return replace(batch, images=torch.empty(0, dtype=torch.uint8)), buffer


@dataclass(frozen=True)
class _Assigned:
    jobs: Iterable[range]
    free: deque[int]

    def __iter__(self) -> Iterator[Job]:
        for job in self.jobs:
            yield job, self.free.popleft() if self.free else None
