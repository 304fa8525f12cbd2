"""The batches of a run, and their way to the model's device.

Workers read ahead into host memory; what is left for this process is one copy. To a GPU it goes
through pinned memory on a stream of its own, while the batch before is computed. On a CPU there is
nothing to copy.

A causal or masked text tower gives a text the same embedding at any padding, so a batch may go
through it in groups of like length, each trimmed to its own longest text. A group costs something
by itself: on a CPU another sum of every weight's gradient, on a GPU another launch of every kernel.
Where to cut a sorted row of lengths is then a shortest path, found exactly.
"""

from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from typing import TypeVar, overload

import numpy as np
import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

from ptft.data import Batch, BatchSpec, KeptFeatures, train_batches
from ptft.data.label_sets import LabelSets
from ptft.data.reading.batch import Pixels, Tokens
from ptft.data.reading.loader import Workers
from ptft.data.reading.order import ORDER, OrderVersion
from ptft.data.sources.class_captions import ClassCaptions, same_class
from ptft.distributed import ALONE, World
from ptft.errors import RecipeError
from ptft.files.tensors import send as send_tensor
from ptft.model import DualEncoder, active_batch_norm, packs_texts
from ptft.objective import needs_labels, needs_pictures, needs_text
from ptft.recipe import DetectObjective, OptimSection, Recipe
from ptft.train.setup import Setup

__all__ = [
    "AHEAD_BYTES",
    "GROUP_COST",
    "batches",
    "copy_ahead",
    "cut_by_length",
    "grouped_tokens",
    "images_to_device",
    "micro_batch",
    "one_ahead",
    "tokens_to_device",
]


def micro_batch(optim: OptimSection, model: DualEncoder, ranks: int) -> int:
    """Samples that a rank forwards at once.

    Raises:
        RecipeError: they do not divide the rank's share of the batch, or a batch norm would see
            each micro batch's statistics in place of the batch's.
    """
    share = optim.global_batch // ranks
    size = optim.micro_batch or share
    if share % size:
        raise RecipeError(
            f"optim.micro_batch: {size}: does not divide a rank's {share} samples "
            f"(optim.global_batch {optim.global_batch} over {ranks} ranks)"
        )
    norm = active_batch_norm(model)
    if size < share and norm is not None:
        raise RecipeError(
            f"optim.micro_batch: {size}: {norm} is a batch norm, which would see {size} samples "
            f"where the batch has {share}; allowed: adapt.freeze_norm: true, adapt.lock of that "
            "tower, or no micro batch"
        )
    return size


def batches(
    recipe: Recipe,
    setup: Setup,
    *,
    start: int,
    end: int,
    size: int,
    workers: Workers,
    world: World = ALONE,
    order: OrderVersion = ORDER,
) -> Iterator[Batch]:
    """A rank's part of each batch of ``size`` samples of the recipe's run, from sample ``start``
    until ``end``, in the order that the run began with; its pictures are on their way to the GPU,
    if there is one."""
    model = setup.model.spec
    spec = BatchSpec(
        preprocess=model.preprocess,
        size=size,
        seed=recipe.seed,
        order=order,
        tokenizer=model.tokenizer if needs_text(recipe.objective) else None,
        teacher_tokenizer=None if setup.teacher is None else setup.teacher.tokenizer,
        augment=recipe.augment,
        rank=world.rank,
        world=world.size,
        image_features=setup.image_features,
        text_features=setup.text_features,
        labelled=needs_labels(recipe.objective),
        pictures=needs_pictures(recipe.objective),
        boxes=isinstance(recipe.objective, DetectObjective),
        mosaic=getattr(recipe.objective, "mosaic", 0.0),
    )
    read = train_batches(setup.samples, spec, start=start, end=end, workers=workers)
    if isinstance(setup.samples, ClassCaptions):
        read = same_class(read)
    if setup.samples.label_sets is not None:
        read = _several(read, setup.samples.label_sets)
    return copy_ahead(read, setup.model.device)


def _several(batches: Iterator[Batch], sets: LabelSets) -> Iterator[Batch]:
    """Batches whose labels are which classes each sample has, bool (B, C), in place of numbers."""
    with closing(batches):  # type: ignore[type-var]
        for batch in batches:
            assert batch.labels is not None, "the set has classes"
            found = torch.from_numpy(sets.multi_hot(batch.labels.numpy()))
            yield replace(batch, labels=found)


@overload
def images_to_device(images: Pixels, model: DualEncoder) -> Tensor: ...
@overload
def images_to_device(images: KeptFeatures, model: DualEncoder) -> KeptFeatures: ...
def images_to_device(images: Pixels | KeptFeatures, model: DualEncoder) -> Tensor | KeptFeatures:
    """Pictures on the model's device, normalised, float32 (B, 3, H, W); kept features as they
    are."""
    if isinstance(images, KeptFeatures):
        return images.to(model.device)
    return model.normalise(send_tensor(images, model.device))


@overload
def tokens_to_device(tokens: Tokens, model: DualEncoder) -> Tokens: ...
@overload
def tokens_to_device(tokens: KeptFeatures, model: DualEncoder) -> KeptFeatures: ...
def tokens_to_device(tokens: Tokens | KeptFeatures, model: DualEncoder) -> Tokens | KeptFeatures:
    """Texts on the model's device, cut to the longest of them where that is exact; kept features
    as they are."""
    if isinstance(tokens, KeptFeatures):
        return tokens.to(model.device)
    return send_tensor(torch.from_numpy(model.spec.tokenizer.trim(tokens.numpy())), model.device)


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


# What a group costs, in tokens that could be run in its place. Measured 60 to 110 with the text
# towers of ViT-S-32 and ViT-B-32 on a CPU; on a GPU estimated: 10 ms of launches at 8e5 tokens/s.
GROUP_COST = {"cpu": 96, "cuda": 8192}


def cut_by_length(lengths: np.ndarray, group_cost: int) -> list[slice]:
    """Cut a row of ascending lengths into runs at the least cost.

    Args:
        lengths: int64 (N,), ascending.
        group_cost: of each run, in tokens; a run of n texts up to length l costs n * l more.
    """
    # only where the length changes can a cut be of use
    edges = [0, *(np.flatnonzero(np.diff(lengths)) + 1).tolist(), len(lengths)]
    cheapest, before = [0.0], [0]
    for end in range(1, len(edges)):
        longest = int(lengths[edges[end] - 1])
        costs = [
            cheapest[start] + group_cost + (edges[end] - edges[start]) * longest
            for start in range(end)
        ]
        best = int(np.argmin(costs))
        cheapest.append(costs[best])
        before.append(best)
    cuts: list[slice] = []
    end = len(edges) - 1
    while end > 0:
        cuts.append(slice(edges[before[end]], edges[end]))
        end = before[end]
    return cuts[::-1]


def grouped_tokens(
    tokens: Tokens | KeptFeatures, model: DualEncoder
) -> list[Tokens | KeptFeatures]:
    """Texts in the order of their lengths, on the model's device in groups, each trimmed to its
    longest. One group where that is cheapest, where padding matters, where the tower leaves padding
    out by itself, where each group would gather sharded weights again, and of kept features."""
    sharded = isinstance(model.logit_scale, DTensor)
    if isinstance(tokens, KeptFeatures) or sharded or packs_texts(model.text):
        return [tokens_to_device(tokens, model)]
    lengths = model.spec.tokenizer.lengths(tokens.numpy())
    cuts = cut_by_length(lengths, GROUP_COST[model.device.type])
    return [tokens_to_device(tokens[cut], model) for cut in cuts]
