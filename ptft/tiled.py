"""Contrastive losses for batches whose (B, B) logits would not fit, in plain torch on any device.

The logits are made a few rows at a time and never kept: a first pass takes each query's negatives
together (a log-sum-exp over rows, a running one over columns), a second makes the same rows again
and turns them into gradients at once. Memory beyond the features is their gradients and one tile.

Inf-CLIP (Cheng et al. 2024) has the same idea as CUDA kernels. Here both passes are four matrix
products in all, where the plain losses with autograd take six.

Over W ranks each has the rows of its own images and gathers the texts alone: no logit is made
twice. What belongs to a column (its negatives, its pull) is reduced over the ranks as B numbers,
and the gather's backward sums the gradients of the texts. The value is that of the whole batch on
every rank; gradients are this rank's share, whose sum over the ranks is the whole batch's.

Shape letters: B batch over all ranks, b of this rank (one rank: b = B), D width of the joint space,
R rows of a tile.
"""

import math
from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ptft.distributed import ALONE, World

__all__ = ["TILE", "pair_groups", "tiled_clip_loss", "tiled_siglip_loss"]

TILE = 2**20  # logits of a tile: 4 MiB in float32, and a handful of them at a time


def tiled_clip_loss(
    image_bd: Tensor,
    text_bd: Tensor,
    scale: Tensor,
    caption_ids: Tensor | None = None,
    world: World = ALONE,
) -> Tensor:
    """:func:`ptft.objective.clip_loss`, with memory that grows with B alone. Same arguments."""
    texts, ids = world.gather(text_bd), _gather_ids(caption_ids, world)
    return _Clip.apply(image_bd, texts, scale, ids, world)


def tiled_siglip_loss(
    image_bd: Tensor,
    text_bd: Tensor,
    scale: Tensor,
    bias: Tensor,
    caption_ids: Tensor | None = None,
    world: World = ALONE,
) -> Tensor:
    """:func:`ptft.objective.siglip_loss`, with memory that grows with B alone. Same arguments."""
    texts, ids = world.gather(text_bd), _gather_ids(caption_ids, world)
    return _Siglip.apply(image_bd, texts, scale, bias, ids, world)


def _gather_ids(caption_ids: Tensor | None, world: World) -> Tensor | None:
    return None if caption_ids is None else pair_groups(world.gather(caption_ids))


def pair_groups(ids: Tensor) -> Tensor:
    """Which pairs are not each other's negatives: int64 (B,), equal for pairs of one group.

    Args:
        ids: (B,), as it is returned; or (B, 2), of captions and pictures: pairs that have either in
            common are of one group, and so are those that a chain of such pairs links.
    """
    if ids.ndim == 1:
        return ids
    columns = [column.unique(return_inverse=True)[1] for column in ids.unbind(dim=1)]
    group = torch.arange(len(ids), device=ids.device)
    while True:
        before = group
        for column in columns:  # each takes the least number among those it is equal to
            least = torch.full_like(group, len(ids)).scatter_reduce_(0, column, group, "amin")
            group = least[column]
        if torch.equal(before, group):
            return group


class _Tiles:
    """This rank's rows of the (B, B) cosines, tile by tile, and which pairs are of one caption.

    Attributes:
        image_rd: this rank's images (b, D).
        text_bd: the texts of all ranks (B, D).
        ids: groups of the pairs of all ranks (B,), see ``pair_groups``.
        own: where this rank's pairs stand among all.
    """

    def __init__(
        self, image_rd: Tensor, text_bd: Tensor, caption_ids: Tensor | None, world: World
    ) -> None:
        self.image_rd, self.text_bd, self.world = image_rd, text_bd, world
        size = len(text_bd)
        self.ids = torch.arange(size, device=text_bd.device) if caption_ids is None else caption_ids
        self.own = slice(world.rank * len(image_rd), (world.rank + 1) * len(image_rd))
        self.rows = max(1, TILE // size)

    def __iter__(self) -> Iterator[tuple[slice, Tensor, Tensor]]:
        """Rows, their cosines (R, B), and a mask (R, B) of pairs of one caption."""
        own_ids = self.ids[self.own]
        for start in range(0, len(self.image_rd), self.rows):
            rows = slice(start, start + self.rows)
            cosine_rb = self.image_rd[rows] @ self.text_bd.T
            yield rows, cosine_rb, own_ids[rows, None] == self.ids[None, :]


class _Gradients:
    """Gradients of a loss by the logits, gathered tile by tile into those by its inputs."""

    def __init__(self, tiles: _Tiles, scale: Tensor) -> None:
        self.tiles, self.scale = tiles, scale
        self.image_rd = torch.empty_like(tiles.image_rd)
        self.text_bd = torch.zeros_like(tiles.text_bd)
        self.scale_sum = torch.zeros_like(scale)
        self.bias_sum = torch.zeros_like(scale)

    def add(self, rows: slice, cosine_rb: Tensor, by_logit_rb: Tensor) -> None:
        self.scale_sum += (by_logit_rb * cosine_rb).sum()
        self.bias_sum += by_logit_rb.sum()
        by_logit_rb *= self.scale
        self.image_rd[rows] = by_logit_rb @ self.tiles.text_bd
        self.text_bd.addmm_(by_logit_rb.T, self.tiles.image_rd[rows])


class _Clip(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        image_rd: Tensor,
        text_bd: Tensor,
        scale: Tensor,
        caption_ids: Tensor | None,
        world: World,
    ) -> Tensor:
        tiles, size = _Tiles(image_rd, text_bd, caption_ids, world), len(text_bd)
        negatives_r, negatives_c = _negatives(tiles, scale)
        positives_b = _counts(tiles)
        positives_r = positives_b[tiles.own]
        pull_c = _column_pulls(tiles, scale, negatives_c, positives_b)
        gradients = _Gradients(tiles, scale)
        total = text_bd.new_zeros(())
        for rows, cosine_rb, same_rb in tiles:
            logits_rb = cosine_rb * scale
            by_logit_rb = torch.zeros_like(logits_rb)
            # image to text, then text to image: the query's negatives, positives and pull
            for negatives, count, pull in (
                (negatives_r[rows, None], positives_r[rows, None], None),
                (negatives_c[None, :], positives_b[None, :], pull_c[None, :]),
            ):
                gap_rb = negatives - logits_rb
                share_rb = (gap_rb.sigmoid() / count).masked_fill_(~same_rb, 0.0)
                total -= (F.logsigmoid(-gap_rb) / count).masked_fill_(~same_rb, 0.0).sum()
                if pull is None:
                    pull = share_rb.sum(dim=1, keepdim=True)
                push_rb = (gap_rb.neg_().exp_() * pull).masked_fill_(same_rb, 0.0)
                by_logit_rb += push_rb.sub_(share_rb)
            gradients.add(rows, cosine_rb, by_logit_rb.div_(2 * size))
        ctx.gradients = [gradients.image_rd, gradients.text_bd, gradients.scale_sum]
        return world.sum_(total) / (2 * size)

    @staticmethod
    def backward(ctx: Any, *by_loss: Tensor) -> tuple[Tensor | None, ...]:
        return *_hand_over(ctx, by_loss[0]), None, None


class _Siglip(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        image_rd: Tensor,
        text_bd: Tensor,
        scale: Tensor,
        bias: Tensor,
        caption_ids: Tensor | None,
        world: World,
    ) -> Tensor:
        tiles, size = _Tiles(image_rd, text_bd, caption_ids, world), len(text_bd)
        gradients = _Gradients(tiles, scale)
        total = text_bd.new_zeros(())
        for rows, cosine_rb, same_rb in tiles:
            logits_rb = torch.addcmul(bias, cosine_rb, scale)
            wrong_rb = torch.where(same_rb, -logits_rb, logits_rb)
            total -= F.logsigmoid(-wrong_rb).sum()
            by_logit_rb = wrong_rb.sigmoid_().div_(size)
            gradients.add(rows, cosine_rb, torch.where(same_rb, -by_logit_rb, by_logit_rb))
        ctx.gradients = [
            *(gradients.image_rd, gradients.text_bd),
            *(gradients.scale_sum, gradients.bias_sum),
        ]
        return world.sum_(total) / size

    @staticmethod
    def backward(ctx: Any, *by_loss: Tensor) -> tuple[Tensor | None, ...]:
        return *_hand_over(ctx, by_loss[0]), None, None


def _hand_over(ctx: Any, by_loss: Tensor) -> list[Tensor]:
    """The gradients, scaled in place: a copy would double what the loss holds."""
    if ctx.gradients is None:
        raise RuntimeError("a tiled loss runs backward once; compute it again")
    gradients, ctx.gradients = ctx.gradients, None
    return [gradient.mul_(by_loss) for gradient in gradients]


def _negatives(tiles: _Tiles, scale: Tensor) -> tuple[Tensor, Tensor]:
    """Log-sum-exp of each own row's and each column's logits of other captions; -inf for none."""
    row_r = torch.empty_like(tiles.image_rd[:, 0])
    column_b = torch.full_like(tiles.text_bd[:, 0], -math.inf)
    for rows, cosine_rb, same_rb in tiles:
        others_rb = cosine_rb.mul_(scale).masked_fill_(same_rb, -math.inf)
        row_r[rows] = others_rb.logsumexp(dim=1)
        torch.logaddexp(column_b, others_rb.logsumexp(dim=0), out=column_b)
    return row_r, _logsumexp_over_ranks(column_b, tiles.world)


def _logsumexp_over_ranks(column_b: Tensor, world: World) -> Tensor:
    if world.size == 1:
        return column_b
    top_b = world.max_(column_b.clone())
    top_b.masked_fill_(top_b == -math.inf, 0.0)  # a column without negatives stays at -inf
    return world.sum_((column_b - top_b).exp_()).log_().add_(top_b)


def _counts(tiles: _Tiles) -> Tensor:
    """How many pairs have each one's caption, itself included, over all ranks: (B,)."""
    _, place, count = tiles.ids.unique(return_inverse=True, return_counts=True)
    return count[place].to(tiles.text_bd.dtype)


def _column_pulls(tiles: _Tiles, scale: Tensor, negatives_c: Tensor, positives_b: Tensor) -> Tensor:
    """What each column's positives are pulled by in all; a pass only where a caption repeats."""
    if bool((positives_b == 1).all()):
        own_r = (tiles.image_rd * tiles.text_bd[tiles.own]).sum(dim=1) * scale
        return (negatives_c - tiles.world.gather(own_r)).sigmoid()
    pull_b = torch.zeros_like(negatives_c)
    for _, cosine_rb, same_rb in tiles:
        share_rb = (negatives_c[None, :] - cosine_rb.mul_(scale)).sigmoid_() / positives_b[None, :]
        pull_b += share_rb.masked_fill_(~same_rb, 0.0).sum(dim=0)
    return tiles.world.sum_(pull_b)
