"""The batches of a run, and their way to the model's device."""

from collections.abc import Iterator

import torch

from ptft.data import Batch, train_batches
from ptft.data.reading.loader import Workers
from ptft.data.reading.read import Tokenizer
from ptft.data.sources.class_captions import ClassCaptions, same_class
from ptft.distributed import ALONE, World
from ptft.model import DualEncoder
from ptft.objective import needs_labels, needs_pictures, needs_text
from ptft.recipe import Recipe
from ptft.train.prefetch import copy_ahead
from ptft.train.setup import Setup
from ptft.train.teacher import PairedTokenizer, split_tokens

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
    """A rank's share of each batch of ``size`` samples of the recipe's run, from sample ``start``
    until ``end``; its pictures are on their way to the GPU, if there is one."""
    spec = setup.model.spec
    tokenizer: Tokenizer | None = spec.tokenizer if needs_text(recipe.objective) else None
    teachers = None if setup.teacher is None else setup.teacher.tokenizer
    if teachers is not None:
        tokenizer = PairedTokenizer(spec.tokenizer, teachers)
    read = train_batches(
        setup.samples,
        preprocess=spec.preprocess,
        tokenizer=tokenizer,
        augment=recipe.augment,
        seed=recipe.seed,
        start=start,
        end=end,
        global_batch=size,
        rank=world.rank,
        world=world.size,
        workers=workers,
        image_features=setup.image_features,
        text_features=setup.text_features,
        labelled=needs_labels(recipe.objective),
        pictures=needs_pictures(recipe.objective),
    )
    if teachers is not None:
        read = split_tokens(read, spec.tokenizer.context_length)
    if isinstance(setup.samples, ClassCaptions):
        read = same_class(read)
    return copy_ahead(read, setup.model.device)


def images_to_device(pixels: torch.Tensor, model: DualEncoder) -> torch.Tensor:
    """uint8 (B, H, W, 3) -> normalised (B, 3, H, W) on the model's device; kept features (B, F) go
    there as they are."""
    if pixels.is_floating_point():
        return pixels.to(model.device, non_blocking=True)
    return model.normalise(pixels.to(model.device, non_blocking=True))


def tokens_to_device(tokens: torch.Tensor, model: DualEncoder) -> torch.Tensor:
    """int64 (B, L) on the model's device, cut to the longest text where that is exact; kept
    features (B, F) go there as they are."""
    if tokens.is_floating_point():
        return tokens.to(model.device, non_blocking=True)
    return torch.from_numpy(model.spec.tokenizer.trim(tokens.numpy())).to(model.device)
