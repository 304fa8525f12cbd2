"""Contrastive losses for batches whose (B, B) logits would not fit, in plain torch on any device.

The logits are made a few rows at a time and never kept: a first pass takes each query's negatives
together (a log-sum-exp over rows, a running one over columns), a second makes the same rows again
and turns them into gradients at once. Memory beyond the features is their gradients and two tiles.

Inf-CLIP (Cheng et al. 2024) has the same idea as CUDA kernels. Here both passes are four matrix
products in all, where the plain losses with autograd take six. What is done to each logit besides
costs as much as the products where those are fast, so there is little of it: one exponential a pass
serves rows and columns (``_NARROW``), what is of positives alone is computed of them alone,
scales are multiplied into rows, and tiles are made in the same memory again and again.

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
from ptft.files.tensors import send
from ptft.positives import pair_groups, positive_pairs

__all__ = ["TILE", "tiled_clip_loss", "tiled_siglip_loss"]

TILE = 2**22  # logits of a tile at most: 16 MiB in float32, and two of them at a time
_ROWS = 256
"""Of a tile at most. As measured at 4,096 to 16,384 pairs (`python -m tests.bench loss_memory`):
with fewer the texts' gradients are read and written too often beside their product, with more
nothing is won."""
_PART = 32  # rows of a tile
_NARROW = 40.0
"""Largest difference of two queries' negatives (log-sum-exp) for which exp(logit - m) of one m
stands for both directions: what float32 rounds to nothing there is below exp(-47) of either."""
_LEAST = 1e-25
"""Smallest sum of a column's exponentials, the largest being 1, that has lost nothing of note."""

_Same = tuple[Tensor, Tensor]  # rows and columns of a tile


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
    """Groups of the pairs of all ranks, where the ids are: on the host nobody waits for a GPU."""
    return None if caption_ids is None else pair_groups(world.gather_ids(caption_ids))


class _Tiles:
    """This rank's rows of the (B, B) logits, tile by tile, in memory that all tiles share.

    Attributes:
        image_rd: this rank's images (b, D).
        text_bd: the texts of all ranks (B, D).
        counts_b: how many pairs have each one's caption, itself included, over all ranks.
        own: where this rank's pairs stand among all.
        asks: whether the device may be asked for a number: it is a CPU, which has it.
    """

    def __init__(
        self,
        image_rd: Tensor,
        text_bd: Tensor,
        scale: Tensor,
        caption_ids: Tensor | None,
        world: World,
    ) -> None:
        self.image_rd, self.text_bd, self.scale, self.world = image_rd, text_bd, scale, world
        size = len(text_bd)
        self.asks = image_rd.device.type == "cpu"
        self.own = slice(world.rank * len(image_rd), (world.rank + 1) * len(image_rd))
        self.counts_b = text_bd.new_ones(size)
        self._apart = caption_ids is None or len(caption_ids.unique()) == size
        if caption_ids is not None and not self._apart:
            counts_b, row_p, column_p = positive_pairs(caption_ids, self.own)
            self.counts_b = send(counts_b, text_bd.device).to(text_bd.dtype)
            self._ends = counts_b[self.own].cumsum(0).tolist()  # of each own row's positives
            self._row_p, self._column_p = (send(p, text_bd.device) for p in (row_p, column_p))
        self._rows = min(len(image_rd), _ROWS, max(1, TILE // size))
        self._rooms = [text_bd.new_empty((self._rows, size)) for _ in range(2)]

    def __iter__(self) -> Iterator[tuple[slice, Tensor, _Same]]:
        """Rows, their logits (R, B) without a bias, and which of them are of one caption."""
        for start in range(0, len(self.image_rd), self._rows):
            rows = slice(start, min(start + self._rows, len(self.image_rd)))
            room_rb = self._rooms[0][: rows.stop - start]
            yield rows, torch.mm(self.scaled(rows), self.text_bd.T, out=room_rb), self._same(rows)

    def positives(self) -> Iterator[tuple[slice, _Same, Tensor]]:
        """Rows, which of their pairs are of one caption, and the logits of those (P,)."""
        if self._apart:
            rows = slice(0, len(self.image_rd))
            own_rd = self.text_bd[self.own]
            yield rows, self._same(rows), torch.linalg.vecdot(self.scaled(rows), own_rd)
            return
        for rows, logits_rb, same in self:
            yield rows, same, logits_rb[same]

    def scaled(self, rows: slice) -> Tensor:
        """Rows of the images, times the logit scale."""
        return self.image_rd[rows] * self.scale

    def spare(self, rows: slice) -> Tensor:
        """Memory of a tile beside its logits."""
        return self._rooms[1][: rows.stop - rows.start]

    def _same(self, rows: slice) -> _Same:
        if self._apart:
            row = torch.arange(rows.stop - rows.start, device=self.text_bd.device)
            return row, row + (self.own.start + rows.start)
        places = slice(self._ends[rows.start - 1] if rows.start else 0, self._ends[rows.stop - 1])
        return self._row_p[places] - rows.start, self._column_p[places]


class _Gradients:
    """Gradients of a loss by the logits, gathered tile by tile into those by its inputs."""

    def __init__(self, tiles: _Tiles) -> None:
        self._tiles = tiles
        self._image_rd = torch.empty_like(tiles.image_rd)
        self._text_bd = torch.zeros_like(tiles.text_bd)

    def add(self, rows: slice, by_logit_rb: Tensor) -> None:
        torch.mm(by_logit_rb, self._tiles.text_bd, out=self._image_rd[rows])
        self._text_bd.addmm_(by_logit_rb.T, self._tiles.scaled(rows))

    def by_inputs(self, factor: float) -> list[Tensor]:
        """By images, texts and scale. The scale's is the sum of cosines times gradients, and so is
        the product of the images with theirs."""
        scale, image_rd = self._tiles.scale, self._tiles.image_rd
        by_scale = torch.linalg.vecdot(self._image_rd, image_rd).sum() * factor
        by_images = self._image_rd.mul_(scale * factor)
        return [by_images, self._text_bd.mul_(factor), by_scale.reshape(scale.shape)]


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
        tiles, size = _Tiles(image_rd, text_bd, scale, caption_ids, world), len(text_bd)
        shares = _Shares(tiles, *_negatives(tiles))
        gradients = _Gradients(tiles)
        for rows, logits_rb, same in tiles:
            row, column = shares.of_positives(rows, same, logits_rb[same])
            by_logit_rb = shares.of_negatives(rows, logits_rb, tiles.spare(rows))
            gradients.add(rows, by_logit_rb.index_put_(same, -(row + column)))
        ctx.gradients = gradients.by_inputs(1 / (2 * size))
        return world.sum_(shares.total) / (2 * size)

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
        tiles, size = _Tiles(image_rd, text_bd, scale, caption_ids, world), len(text_bd)
        gradients = _Gradients(tiles)
        total, by_bias = text_bd.new_zeros(()), torch.zeros_like(bias)
        for rows, logits_rb, same in tiles:
            positives = logits_rb.add_(bias)[same]
            # -log sigmoid(-x) as of a negative, and of a positive -log sigmoid(x): less by x
            total -= positives.sum()
            for part_rb in logits_rb.split(_PART):  # log sigmoid takes two more of what it is given
                total -= F.logsigmoid(-part_rb).sum()
            by_logit_rb = logits_rb.sigmoid_().index_put_(same, -positives.neg().sigmoid())
            by_bias += by_logit_rb.sum()
            gradients.add(rows, by_logit_rb)
        ctx.gradients = [*gradients.by_inputs(1 / size), by_bias.div_(size)]
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


class _Shares:
    """Gradients of InfoNCE by the logits: what each query pulls its positives by, and pushes each
    of its negatives by.

    Args:
        row_r, column_b: log-sum-exp of the negatives of each own image (b,) and each text (B,).

    Attributes:
        total: of the losses of own rows, in both directions.
    """

    def __init__(self, tiles: _Tiles, row_r: Tensor, column_b: Tensor) -> None:
        self._row_r, self._column_b, self._tiles = row_r, column_b, tiles
        self._pull_r, self._pull_b = torch.zeros_like(row_r), torch.zeros_like(column_b)
        self.total = row_r.new_zeros(())
        for rows, same, positives in tiles.positives():
            row, column = self.of_positives(rows, same, positives)
            self._pull_r[rows].index_add_(0, same[0], row)
            self._pull_b.index_add_(0, same[1], column)
            for negatives in self._queries(rows, same):
                self.total -= (F.logsigmoid(positives - negatives) / self._count(same)).sum()
        tiles.world.sum_(self._pull_b)
        self._narrow = False
        both = torch.cat([row_r, column_b])
        if tiles.asks:
            both = both[both.isfinite()]
            self._narrow = len(both) > 0 and bool(both.max() - both.min() <= _NARROW)
        if self._narrow:
            self._middle = (both.max() + both.min()) / 2
            self._by_row = self._pull_r * (self._middle - row_r).exp()
            self._by_column = self._pull_b * (self._middle - column_b).exp()

    def of_positives(self, rows: slice, same: _Same, positives: Tensor) -> tuple[Tensor, Tensor]:
        """Those of positives, whose logits are (P,), times -1: as images' and as texts'."""
        row, column = (
            (negatives - positives).sigmoid() / self._count(same)
            for negatives in self._queries(rows, same)
        )
        return row, column

    def of_negatives(self, rows: slice, logits_rb: Tensor, spare_rb: Tensor) -> Tensor:
        """Those of negatives, in place of the logits (R, B); of positives what comes is void."""
        if self._narrow:
            torch.add(self._by_row[rows, None], self._by_column[None, :], out=spare_rb)
            return logits_rb.sub_(self._middle).exp_().mul_(spare_rb)
        torch.sub(logits_rb, self._column_b[None, :], out=spare_rb).exp_().mul_(self._pull_b)
        logits_rb.sub_(self._row_r[rows, None]).exp_().mul_(self._pull_r[rows, None])
        return logits_rb.add_(spare_rb)

    def _queries(self, rows: slice, same: _Same) -> tuple[Tensor, Tensor]:
        """The negatives of each positive's image and text."""
        return self._row_r[rows][same[0]], self._column_b[same[1]]

    def _count(self, same: _Same) -> Tensor:
        return self._tiles.counts_b[same[1]]


def _negatives(tiles: _Tiles) -> tuple[Tensor, Tensor]:
    """Log-sum-exp of each own row's and each column's logits of other captions; -inf for none."""
    row_r, column_b = _negatives_at_once(tiles) if tiles.asks else (None, None)
    if row_r is None or column_b is None:
        row_r = torch.empty_like(tiles.image_rd[:, 0]) if row_r is None else row_r
        column_b = torch.full_like(tiles.text_bd[:, 0], -math.inf)
        nothing = column_b.new_full((), -math.inf)
        for rows, logits_rb, same in tiles:
            others_rb = logits_rb.index_put_(same, nothing)
            torch.logaddexp(column_b, others_rb.logsumexp(dim=0), out=column_b)
            if not tiles.asks:
                row_r[rows] = others_rb.logsumexp(dim=1)
    return row_r, _logsumexp_over_ranks(column_b, tiles.world)


def _negatives_at_once(tiles: _Tiles) -> tuple[Tensor, Tensor | None]:
    """Both by one exponential, less each row's largest; None of the columns, where one of them is
    so far below the rest that float32 would lose it."""
    row_r = torch.empty_like(tiles.image_rd[:, 0])
    sum_b = torch.zeros_like(tiles.text_bd[:, 0])
    top = sum_b.new_tensor(-math.inf)
    for rows, logits_rb, same in tiles:
        others_rb = logits_rb.index_put_(same, logits_rb.new_tensor(-math.inf))
        most_r = others_rb.amax(dim=1)
        most_r.masked_fill_(most_r == -math.inf, 0.0)  # a row without negatives
        others_rb.sub_(most_r[:, None]).exp_()
        row_r[rows] = others_rb.sum(dim=1).log_().add_(most_r)
        before, top = top, torch.maximum(top, most_r.max())
        sum_b.mul_((before - top).exp()).addmv_(others_rb.T, (most_r - top).exp_())
    if bool(sum_b.min() < _LEAST):
        return row_r, None
    return row_r, sum_b.log_().add_(top)


def _logsumexp_over_ranks(column_b: Tensor, world: World) -> Tensor:
    if world.size == 1:
        return column_b
    top_b = world.max_(column_b.clone())
    top_b.masked_fill_(top_b == -math.inf, 0.0)  # a column without negatives stays at -inf
    return world.sum_((column_b - top_b).exp_()).log_().add_(top_b)
