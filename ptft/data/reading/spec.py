"""What the batches of a run are made of, wherever in the run they begin."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from ptft.data.reading.features import FeatureFile, TextFeatures
from ptft.data.reading.order import ORDER, OrderVersion
from ptft.errors import RecipeError
from ptft.preprocess.images import Augmentation, ImagePreprocess

__all__ = ["BatchSpec", "Tokenizer"]

Tokenizer = Callable[[Sequence[str]], np.ndarray]
"""Texts to token ids, int64 (B, L)."""


@dataclass(frozen=True)
class BatchSpec:
    """What decides the batches of a run beside its samples.

    Attributes:
        preprocess: of the model.
        size: samples of a batch over all ranks; each rank takes an equal part of them.
        seed: of the recipe.
        order: the version of the order that the run began with.
        tokenizer: of the model; None where captions are not needed.
        teacher_tokenizer: of a teacher that reads other tokens.
        augment: the recipe's section; None gives the evaluation transform.
        rank, world: this process among all.
        image_features, text_features: what a locked tower makes of the set's pictures and of its
            captions, to be read in their place.
        labelled: whether a sample needs a label; None: where captions are not needed.
        pictures: False leaves them unread.
        boxes: True reads pictures with their boxes, and neither captions nor labels.
        mosaic: share of pictures with boxes that four are put together to.

    Raises:
        RecipeError: the ranks do not divide the batch.
    """

    preprocess: ImagePreprocess
    size: int
    seed: int = 0
    order: OrderVersion = ORDER
    tokenizer: Tokenizer | None = None
    teacher_tokenizer: Tokenizer | None = None
    augment: Augmentation | None = None
    rank: int = 0
    world: int = 1
    image_features: FeatureFile | None = None
    text_features: TextFeatures | None = None
    labelled: bool | None = None
    pictures: bool = True
    boxes: bool = False
    mosaic: float = 0.0

    def __post_init__(self) -> None:
        if self.size % self.world:
            raise RecipeError(
                f"optim.global_batch: {self.size} over {self.world} ranks; allowed: a multiple of "
                f"{self.world}"
            )

    @property
    def share(self) -> int:
        """Samples of a batch that this rank takes."""
        return self.size // self.world

    @property
    def decodes(self) -> bool:
        """Whether pictures are decoded: they are read, and no features stand in for them."""
        return self.pictures and self.image_features is None

    @property
    def needs_label(self) -> bool:
        """Whether a sample without a label is passed over."""
        return self.tokenizer is None if self.labelled is None else self.labelled
