"""What the loader yields."""

from dataclasses import dataclass
from typing import NamedTuple

import torch

from ptft.errors import Fault, SampleError

__all__ = ["Batch", "EvalBatch", "PixelBlock", "Skip", "Skipped"]


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
        images: uint8 (B, H, W, 3), augmented, not normalised; or float32 (B, F), kept features;
            None where no picture is read.
        tokens: int64 (B, L) of the captions drawn, or float32 (B, F), kept features of them; None
            where no tokenizer was given.
        caption_ids: int64 (B, 2), a number of the caption and one of the picture, each equal where
            these are; or (B,), classes where captions are made of these; None with ``tokens``.
        labels: int64 (B,), -1 for none; None where the set has no classes.
        names: of the samples.
        skipped: samples that stood in this batch's places and could not be read.
        teacher_tokens: int64 (B, L'), the captions as a teacher's own tokenizer has them.
    """

    images: torch.Tensor | None
    tokens: torch.Tensor | None
    caption_ids: torch.Tensor | None
    labels: torch.Tensor | None
    names: list[str]
    skipped: Skipped
    teacher_tokens: torch.Tensor | None = None

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
        labels: int64 (B,), -1 for none; None where the set has no classes.
        skipped: samples that were left out.
    """

    images: torch.Tensor | None
    indices: torch.Tensor
    captions: list[tuple[str, ...]]
    labels: torch.Tensor | None
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
