"""Shared memory used again: never while somebody still looks at it."""

import numpy as np
import torch

from ptft.data.open import open_split
from ptft.data.reading.batch import Batch, BatchSpec
from ptft.data.reading.loader import train_batches
from ptft.data.reading.shared_buffers import SharedBuffers
from ptft.preprocess.images import ImagePreprocess
from ptft.recipe import AugmentSection
from ptft.recipe.data import ScenesData


def batch_of(images: torch.Tensor) -> Batch:
    return Batch(images, None, None, None, [], [])


def test_a_buffer_is_free_when_no_view_of_it_is_left() -> None:
    buffers = SharedBuffers(2, (3, 4, 4, 3))
    jobs = iter(buffers.assign([range(n, n + 3) for n in range(6)]))
    (_, first), (_, second), (_, none) = next(jobs), next(jobs), next(jobs)
    assert (first, second, none) == (0, 1, None)
    nothing = batch_of(torch.empty(0, dtype=torch.uint8))
    buffers.pictures[0].fill_(7)
    one = buffers.receive((nothing, 0))
    assert one.images.shape == (3, 4, 4, 3) and bool((one.images == 7).all())
    assert one.images.data_ptr() == buffers.pictures[0].data_ptr(), "nothing is copied"
    view = one.images[1:].permute(0, 3, 1, 2)
    del one
    assert next(jobs)[1] is None, "a view still looks at it"
    array = view.numpy()
    del view
    assert next(jobs)[1] is None, "an array still looks at it"
    del array
    assert next(jobs)[1] == 0
    own = batch_of(torch.ones(1))
    assert buffers.receive((own, None)) is own


def test_batches_too_large_to_keep_room_for_take_fresh_memory() -> None:
    assert SharedBuffers(1000, (4096, 224, 224, 3)).pictures == []


def test_workers_write_to_buffers_that_were_let_go_and_to_no_others() -> None:
    samples = open_split(ScenesData(train=24, size=32), "train")

    def batches(workers: int) -> "list[tuple[int, np.ndarray]]":
        read = train_batches(
            samples,
            BatchSpec(preprocess=ImagePreprocess(size=(16, 16)), size=4, augment=AugmentSection()),
            start=0,
            end=96,
            workers=workers,
        )
        kept: list[torch.Tensor] = []
        found = []
        for number, batch in enumerate(read):
            if number < 3:
                kept.append(batch.images[:2])
            found.append((batch.images.data_ptr(), batch.images.numpy().copy()))
        for view, (_, pictures) in zip(kept, found, strict=False):
            assert np.array_equal(view.numpy(), pictures[:2]), "somebody wrote over it"
        return found

    alone, helped = batches(0), batches(1)
    assert all(
        np.array_equal(one, other) for (_, one), (_, other) in zip(alone, helped, strict=True)
    )
    places = [place for place, _ in helped]
    assert len(set(places)) < len(places), "no buffer was used twice"
    assert not set(places[:3]) & set(places[3:]), "of those that were kept, none was"
