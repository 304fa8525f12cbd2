"""What a run's batches are made of, and what the loader yields."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Self, TypeAlias

import numpy as np
import torch

from ptft.data.boxes.box import Boxes
from ptft.data.reading.features import FeatureFile, TextFeatures
from ptft.data.reading.order import ORDER, OrderVersion
from ptft.errors import Fault, RecipeError, SampleError
from ptft.files.tensors import send
from ptft.preprocess.frame import Frame
from ptft.preprocess.images import Augmentation, ImagePreprocess

__all__ = [
    "Batch",
    "BatchSpec",
    "EvalBatch",
    "KeptFeatures",
    "MarkedBatch",
    "PixelBlock",
    "Pixels",
    "Skip",
    "Skipped",
    "Tokenizer",
    "Tokens",
]

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


Pixels: TypeAlias = torch.Tensor
"""Pictures, uint8 (B, H, W, 3), augmented, not normalised."""

Tokens: TypeAlias = torch.Tensor
"""Texts, int64 (B, L)."""


@dataclass(frozen=True)
class KeptFeatures:
    """What a locked tower's trunk made of pictures or texts, in place of these.

    Attributes:
        rows: float32 (B, F), which the tower's projection is applied to.
    """

    rows: torch.Tensor

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, places: slice | torch.Tensor) -> Self:
        """The features at some places of the batch."""
        return type(self)(self.rows[places])

    def to(self, device: torch.device) -> Self:
        """The same on a device, see :func:`ptft.files.tensors.send`."""
        return type(self)(send(self.rows, device))


class Skip(NamedTuple):
    """A sample that could not be read: its name, why, and the kind of fault."""

    name: str
    reason: str
    fault: Fault


Skipped = list[Skip]


@dataclass
class Batch:
    """One rank's part of a global batch.

    Attributes:
        images: the pictures or their kept features; None where no picture is read.
        tokens: the captions drawn, or their kept features; None where no tokenizer was given.
        caption_ids: int64 (B, 2), a number of the caption and one of the picture, each equal where
            these are; or (B,), classes where captions are made of these; None with ``tokens``.
        labels: int64 (B,), -1 for none; None where the set has no classes. Where a sample may have
            several, the numbers of their sets, or which it has, bool (B, C).
        names: of the samples.
        skipped: samples that stood in this batch's places and could not be read.
        teacher_tokens: the same captions as a teacher's own tokenizer has them.
        boxes: of each picture, centre x, centre y, width and height as shares of it; None where no
            boxes are read.
    """

    images: Pixels | KeptFeatures | None
    tokens: Tokens | KeptFeatures | None
    caption_ids: torch.Tensor | None
    labels: torch.Tensor | None
    names: list[str]
    skipped: Skipped
    teacher_tokens: Tokens | None = None
    boxes: list[Boxes] | None = None

    def __len__(self) -> int:
        """Number of samples B."""
        return len(self.names)


@dataclass
class EvalBatch:
    """Consecutive samples of a set, those left out that could not be read.

    Attributes:
        images: uint8 (B, H, W, 3), not normalised; None where no picture is read.
        indices: int64 (B,), of the samples in their set.
        captions: of each sample, in words.
        labels: int64 (B,), -1 for none, as ``Sample.label`` has them; None where the set has no
            classes.
        skipped: samples that were left out.
    """

    images: torch.Tensor | None
    indices: torch.Tensor
    captions: list[tuple[str, ...]]
    labels: torch.Tensor | None
    skipped: Skipped


@dataclass
class MarkedBatch:
    """Consecutive samples of a set with their boxes, those left out that could not be read.

    Attributes:
        images: uint8 (B, H, W, 3), not normalised.
        indices: int64 (B,), of the samples in their set.
        boxes: of each, in pixels of its upright picture.
        frames: how each picture lies in what the model is given.
        skipped: samples that were left out.
    """

    images: torch.Tensor
    indices: torch.Tensor
    boxes: list[Boxes]
    frames: list[Frame]
    skipped: Skipped


@dataclass
class PixelBlock:
    """Pictures of consecutive samples.

    Attributes:
        images: uint8 (B, H, W, 3), of those that could be read.
        indices: of all samples of the block.
        unreadable: number -> what is wrong with it, of the others.
    """

    images: torch.Tensor
    indices: range
    unreadable: dict[int, SampleError]
