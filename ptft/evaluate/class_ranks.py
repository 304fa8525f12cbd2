"""The rank of the right class, sample by sample, from scores that are computed by blocks.

Conventions are those of ``ptft.evaluate.ranks``; shape letters: N samples, B of them, C classes, W
width of what is scored.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ptft.errors import DataError

__all__ = [
    "SCORES_AT_ONCE",
    "ClassRanks",
    "Score",
    "blocks_of",
    "class_ranks",
    "rank_blocks",
    "rank_classes",
]

SCORES_AT_ONCE = 1 << 24  # scores held at once: 64 MiB of float32

Score = Callable[[Tensor], Tensor]
"""What a class head or a probe reads (B, W) -> its logits (B, C)."""


@dataclass(frozen=True)
class ClassRanks:
    """A classification, its scores computed a block of samples at a time.

    Attributes:
        ranks_n: int64 (N,), how many wrong classes score at least as high as the right one.
        sure_n: float64 (N,), the largest probability of each sample.
        said_n: int64 (N,), the class of that probability.
        labels_n: int64 (N,), the right classes.
        classes: C.
        inputs_nw: what is scored.
        score: inputs (B, W) -> logits (B, C), scaled as the model's softmax wants them.
    """

    ranks_n: Tensor
    sure_n: Tensor
    said_n: Tensor
    labels_n: Tensor
    classes: int
    inputs_nw: Tensor
    score: Score

    @property
    def right_n(self) -> Tensor:
        """bool (N,), whether the class that is said is the right one."""
        return self.said_n == self.labels_n

    def blocks(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Logits (B, C) of blocks of samples, and which class is right: bool (B, C)."""
        for rows in blocks_of(len(self.labels_n), self.classes):
            with torch.no_grad():
                logits = self.score(self.inputs_nw[rows])
            yield logits, F.one_hot(self.labels_n[rows], self.classes).bool()


def rank_blocks(score: Score, inputs_nw: Tensor, labels_n: Tensor, classes: int) -> ClassRanks:
    """Rank the right class of each sample by its logits, a block of samples at a time.

    Args:
        score: inputs (B, W) -> logits (B, C), scaled as the model's softmax wants them.
        inputs_nw: of all samples, on the device of ``labels_n``.
        labels_n: int64, the right classes.
        classes: C.

    Raises:
        DataError: there is no sample, or a label is not a class.
    """
    if len(labels_n) == 0:
        raise DataError("nothing to classify: no sample of this split has a label")
    if int(labels_n.min()) < 0 or int(labels_n.max()) >= classes:
        raise DataError(
            f"labels run from {int(labels_n.min())} to {int(labels_n.max())}; "
            f"allowed with {classes} classes: 0 to {classes - 1}"
        )
    ranks, sure, said = [], [], []
    for rows in blocks_of(len(labels_n), classes):
        with torch.no_grad():
            logits_bc, labels_b = score(inputs_nw[rows]), labels_n[rows]
        ranks.append(class_ranks(logits_bc, labels_b))
        sure_b, said_b = logits_bc.double().softmax(dim=1).max(dim=1)
        sure.append(sure_b)
        said.append(said_b)
    return ClassRanks(
        torch.cat(ranks), torch.cat(sure), torch.cat(said), labels_n, classes, inputs_nw, score
    )


def blocks_of(queries: int, candidates: int) -> Iterator[slice]:
    """Rows of a matrix of scores, as many at once as ``SCORES_AT_ONCE`` has room for."""
    step = max(1, SCORES_AT_ONCE // max(1, candidates))
    for start in range(0, queries, step):
        yield slice(start, min(start + step, queries))


def class_ranks(logits_nc: Tensor, labels_n: Tensor) -> Tensor:
    """Count the wrong classes that score at least as high as the right one: int64 (N,)."""
    own_n = logits_nc.gather(1, labels_n[:, None])
    return (~(logits_nc < own_n)).sum(dim=1) - 1


def rank_classes(logits_nc: Tensor, labels_n: Tensor) -> ClassRanks:
    """:func:`rank_blocks` of logits that are there already."""
    return rank_blocks(lambda rows_bc: rows_bc, logits_nc, labels_n, logits_nc.shape[1])
