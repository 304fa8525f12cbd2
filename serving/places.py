"""Pictures to the rows of a detector's places, decoding and tower side by side."""

import asyncio
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ptft.errors import SampleError
from ptft.preprocess.frame import Frame
from serving.admission import Ticket
from serving.encoder import AHEAD, Encoder
from serving.pictures import Picture
from serving.waiting import all_or_none

__all__ = ["Placed", "find_places"]

Placed = tuple[NDArray[np.float32], Frame] | SampleError
"""Rows of places (N, D + 6), see ``ptft.onnx.boxes``, and how the upright picture lies in what the
detector saw; or why there are none."""


async def find_places(
    encoder: Encoder,
    ticket: Ticket,
    pictures: Sequence[Picture | SampleError],
    readable: asyncio.Event | None = None,
) -> list[Placed]:
    """Look at pictures, each for itself: one that fails fails alone.

    Args:
        encoder: with a detector.
        readable: set when the first is decoded.
    """
    assert encoder.places is not None
    tower, ahead = encoder.places, asyncio.Semaphore(AHEAD)

    async def one(picture: Picture | SampleError) -> Placed:
        if isinstance(picture, SampleError):
            return picture
        async with ahead:
            framed = await encoder.decode_framed(ticket, picture)
            if isinstance(framed, SampleError):
                return framed
            if readable is not None:
                readable.set()
            pixels, frame = framed
            (future,) = tower.submit(ticket, [pixels], phases=ticket.phases)
            return await future, frame

    return list(await all_or_none(one(picture) for picture in pictures))
