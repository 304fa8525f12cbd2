"""The batches of a run, and their way to the model's device."""

from collections.abc import Iterator
from typing import overload

import torch
from torch import Tensor

from ptft.data import Batch, BatchSpec, KeptFeatures, train_batches
from ptft.data.reading.batch import Pixels, Tokens
from ptft.data.reading.loader import Workers
from ptft.data.sources.class_captions import ClassCaptions, same_class
from ptft.distributed import ALONE, World
from ptft.model import DualEncoder
from ptft.objective import needs_labels, needs_pictures, needs_text
from ptft.recipe import Recipe
from ptft.train.prefetch import copy_ahead
from ptft.train.setup import Setup

__all__ = ["batches", "images_to_device", "tokens_to_device"]


def batches(
    recipe: Recipe,
    setup: Setup,
    *,
    start: int,
    end: int,
    size: int,
    workers: Workers,
    world: World = ALONE,
) -> Iterator[Batch]:
    """A rank's part of each batch of ``size`` samples of the recipe's run, from sample ``start``
    until ``end``; its pictures are on their way to the GPU, if there is one."""
    model = setup.model.spec
    spec = BatchSpec(
        preprocess=model.preprocess,
        size=size,
        seed=recipe.seed,
        tokenizer=model.tokenizer if needs_text(recipe.objective) else None,
        teacher_tokenizer=None if setup.teacher is None else setup.teacher.tokenizer,
        augment=recipe.augment,
        rank=world.rank,
        world=world.size,
        image_features=setup.image_features,
        text_features=setup.text_features,
        labelled=needs_labels(recipe.objective),
        pictures=needs_pictures(recipe.objective),
    )
    read = train_batches(setup.samples, spec, start=start, end=end, workers=workers)
    if isinstance(setup.samples, ClassCaptions):
        read = same_class(read)
    return copy_ahead(read, setup.model.device)


@overload
def images_to_device(images: Pixels, model: DualEncoder) -> Tensor: ...
@overload
def images_to_device(images: KeptFeatures, model: DualEncoder) -> KeptFeatures: ...
def images_to_device(images: Pixels | KeptFeatures, model: DualEncoder) -> Tensor | KeptFeatures:
    """Pictures on the model's device, normalised, float32 (B, 3, H, W); kept features as they
    are."""
    if isinstance(images, KeptFeatures):
        return images.to(model.device)
    return model.normalise(images.to(model.device, non_blocking=True))


@overload
def tokens_to_device(tokens: Tokens, model: DualEncoder) -> Tokens: ...
@overload
def tokens_to_device(tokens: KeptFeatures, model: DualEncoder) -> KeptFeatures: ...
def tokens_to_device(tokens: Tokens | KeptFeatures, model: DualEncoder) -> Tokens | KeptFeatures:
    """Texts on the model's device, cut to the longest of them where that is exact; kept features
    as they are."""
    if isinstance(tokens, KeptFeatures):
        return tokens.to(model.device)
    return torch.from_numpy(model.spec.tokenizer.trim(tokens.numpy())).to(model.device)
