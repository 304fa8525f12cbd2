"""Pictures on their way to a GPU while it works on the batch before.

Workers read ahead into host memory; what is left for this process is one copy. On CUDA it goes
through pinned memory on a stream of its own, so that it overlaps with computing. On a CPU there is
nothing to copy.
"""

from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from typing import TypeVar

import torch

from ptft.data import Batch, KeptFeatures

__all__ = ["AHEAD_BYTES", "copy_ahead", "one_ahead"]

AHEAD_BYTES = 1 << 30
"""Pictures of a larger batch stay on the host, to be copied a micro batch at a time: 7,000 of 224
pixels. Twice as much lies on the GPU while one batch is computed and the next arrives."""

T = TypeVar("T")


def copy_ahead(batches: Iterator[Batch], device: torch.device) -> Iterator[Batch]:
    """The same batches in the same order, their pictures on ``device`` where that is a GPU."""
    if device.type != "cuda":
        return batches
    stream = torch.cuda.Stream(device)

    def send(batch: Batch) -> Batch:
        rows = _rows(batch)
        if rows is None or rows.nbytes > AHEAD_BYTES:
            return batch
        pinned = rows.pin_memory()  # kept by its allocator until the copy is done
        with torch.cuda.stream(stream):
            sent = pinned.to(device, non_blocking=True)
        return replace(
            batch, images=KeptFeatures(sent) if isinstance(batch.images, KeptFeatures) else sent
        )

    def receive(batch: Batch) -> Batch:
        rows = _rows(batch)
        if rows is not None and rows.is_cuda:
            now = torch.cuda.current_stream(device)
            now.wait_stream(stream)
            rows.record_stream(now)  # or its memory would be free for the next copy
        return batch

    return one_ahead(batches, send, receive)


def one_ahead(items: Iterator[T], send: Callable[[T], T], receive: Callable[[T], T]) -> Iterator[T]:
    """``receive(send(item))`` for each item in order; the next one is sent before one is received.

    Args:
        items: a generator; it is closed with this one.
        send: starts what takes time.
        receive: sees that it is done.
    """
    waiting: list[T] = []
    with closing(items):  # type: ignore[type-var]
        for item in items:
            waiting.append(send(item))
            if len(waiting) > 1:
                yield receive(waiting.pop(0))
        for item in waiting:
            yield receive(item)


def _rows(batch: Batch) -> torch.Tensor | None:
    """A batch's pictures, or the kept features of them."""
    return batch.images.rows if isinstance(batch.images, KeptFeatures) else batch.images
