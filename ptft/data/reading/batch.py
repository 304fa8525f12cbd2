"""What the loader yields."""

from dataclasses import dataclass
from typing import NamedTuple, Self, TypeAlias

import torch

from ptft.data.boxes.box import Boxes
from ptft.errors import Fault, SampleError
from ptft.files.tensors import send
from ptft.preprocess.frame import Frame

__all__ = [
    "Batch",
    "EvalBatch",
    "KeptFeatures",
    "MarkedBatch",
    "PixelBlock",
    "Pixels",
    "Skip",
    "Skipped",
    "Tokens",
]

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
