"""Losses that draw a student's answers to a teacher's.

Shape letters: B batch over all ranks, b of this rank, D width of the student's joint space, E of
the teacher's, C classes, R rows of a tile.

The (B, B) logits of a large batch are made a few rows at a time and made again in the backward
pass. Over ranks each takes the rows of its own images and of its own texts; as in
:mod:`ptft.objective`, the value is the whole batch's on every rank and the gradients are shares
that sum to the whole batch's.
"""

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from ptft.distributed import ALONE, World
from ptft.tiled import TILE

__all__ = ["Pairs", "class_distillation", "contrast_distillation", "feature_distance"]


@dataclass(frozen=True)
class Pairs:
    """What one model makes of this rank's pairs.

    Attributes:
        image_bd, text_bd: L2-normalised (b, D).
        scale: (1,), 1/temperature of the model's softmax over a batch.
    """

    image_bd: Tensor
    text_bd: Tensor
    scale: Tensor


def contrast_distillation(
    student: Pairs, teacher: Pairs, *, temperature: float = 1.0, world: World = ALONE
) -> Tensor:
    """Cross-entropy of the student's softmax over the batch under the teacher's, both ways.

    At temperature 1 it is open_clip's ``DistillClipLoss``. A logit bias (SigLIP) is the same for
    all of a softmax and drops out.

    Returns:
        The mean of image-to-text and text-to-image over the batch, times temperature squared: 0-d.
    """
    total = student.image_bd.new_zeros(())
    for query, key in (("image_bd", "text_bd"), ("text_bd", "image_bd")):
        keys_bd = world.gather(getattr(student, key))
        teachers_be = world.gather(getattr(teacher, key))
        queries_bd, teaching_be = getattr(student, query), getattr(teacher, query)
        rows = max(1, TILE // 4 // len(keys_bd))  # autograd keeps several of a tile's size
        for start in range(0, len(queries_bd), rows):
            tile = slice(start, start + rows)
            arguments = (
                *(queries_bd[tile], keys_bd, student.scale / temperature),
                *(teaching_be[tile], teachers_be, teacher.scale / temperature),
            )
            if rows >= len(queries_bd):
                total = total + _cross_entropy(*arguments)
            else:
                total = total + checkpoint(
                    _cross_entropy, *arguments, use_reentrant=False, preserve_rng_state=False
                )
    pairs = len(student.image_bd) * world.size
    return _over_ranks(total * (temperature**2 / (2 * pairs)), world)


def class_distillation(
    student_bc: Tensor, teacher_bc: Tensor, *, temperature: float = 1.0
) -> Tensor:
    """KL divergence of the student's class probabilities from the teacher's (Hinton et al. 2015).

    Args:
        student_bc, teacher_bc: logits (b, C).

    Returns:
        The mean over samples, times temperature squared: 0-d.
    """
    ours = F.log_softmax(student_bc / temperature, dim=1)
    theirs = F.log_softmax(teacher_bc / temperature, dim=1)
    return F.kl_div(ours, theirs, reduction="batchmean", log_target=True) * temperature**2


def feature_distance(student: Pairs, teacher: Pairs, world: World = ALONE) -> Tensor:
    """Squared distance of the embeddings of an image, and of a text; mean of both and of the batch.

    Both are of length 1, so it is 2 - 2 cos. 0-d.
    """
    images = (student.image_bd - teacher.image_bd).square().sum()
    texts = (student.text_bd - teacher.text_bd).square().sum()
    pairs = len(student.image_bd) * world.size
    return _over_ranks((images + texts) / (2 * pairs), world)


def _cross_entropy(
    query_rd: Tensor,
    keys_bd: Tensor,
    scale: Tensor,
    teacher_re: Tensor,
    teachers_be: Tensor,
    teacher_scale: Tensor,
) -> Tensor:
    ours_rb = F.log_softmax(scale * (query_rd @ keys_bd.T), dim=1)
    theirs_rb = F.softmax(teacher_scale * (teacher_re @ teachers_be.T), dim=1)
    return -(theirs_rb * ours_rb).sum()


def _over_ranks(share: Tensor, world: World) -> Tensor:
    """A value summed over the ranks that keeps the gradient of this rank's share."""
    if world.size == 1:
        return share
    whole = world.sum_(share.detach().clone())
    return share + (whole - share.detach())
