"""Who is found: the rank of the right answer, query by query, of a retrieval; classes are ranked in
``class_ranks`` by the same conventions.

All figures and all hits are read off these ranks, so that two places that measure one model agree.

Conventions, in the field's terms (Karpathy & Fei-Fei 2015, as ALBEF and BLIP evaluate):

- Image to text (i2t): an image is found at k if *any* of its captions is among its k best texts.
- Text to image (t2i): every caption is a query of its own, found if its image is among the k best.
- An image without a caption is no query, and stays a candidate for the captions.
- An equal caption of *another* image stays a wrong answer, as it does in published figures.
- A tie counts against the model: in a retrieval a wrong candidate within ``TIE`` of the right one
  is ranked before it, among classes one with the same score. A collapsed model, whose embeddings
  are all alike, then scores 0 and not 1; so does one that gives NaN, since what is not known to be
  worse counts as better.

In a run on several ranks the first has the embeddings and evaluates; the others, which wait for it,
take a share of the queries each: every W-th block, of those that one process alone would make, so
that what comes out is the same bit for bit.

Shape letters: N samples, M texts, Q queries, D width of the joint space.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass, field
from itertools import islice
from typing import Literal

import torch
from torch import Tensor

from ptft.distributed import ALONE, World
from ptft.errors import DataError, TrainingError
from ptft.evaluate.embed import SplitEmbeddings
from ptft.model import DualEncoder

__all__ = [
    "CANDIDATES_AT_ONCE",
    "SCORES_AT_ONCE",
    "SCORE_BYTES",
    "TIE",
    "RetrievalRanks",
    "TextEmbedder",
    "Way",
    "blocks_of",
    "caption_ranks",
    "help_first",
    "helped",
    "image_ranks",
    "parts_of",
    "rank_captions",
    "rank_retrieval",
    "scores_at_once",
    "scores_within",
]

TIE = 1e-6
"""Cosines closer than this are equal: a few times the rounding of a float32 dot product."""

CANDIDATES_AT_ONCE = 1 << 14
"""Of few queries with very many candidates a product of matrices reads more than it works."""

SCORES_AT_ONCE = 1 << 24  # scores held at once where nobody says otherwise
SCORE_BYTES = 16  # that one takes: float32, its block and the one before; the rest for _WORK
_WORK = 8  # parts of a block, whose scores are computed with in float64, at up to 40 bytes each

_within: ContextVar[int | None] = ContextVar("scores_within", default=None)
_helpers: ContextVar[World] = ContextVar("helpers", default=ALONE)

Way = Literal["i2t", "t2i"]
"""Image to text, or text to image."""

TextEmbedder = Callable[[Sequence[str]], Tensor]
"""Texts -> L2-normalised float32 (M, D)."""


@dataclass(frozen=True)
class RetrievalRanks:
    """A retrieval, both ways; all tensors on one device.

    Attributes:
        i2t_q: int64 (Q,), how many captions of other images come before the best own one, of each
            image that has a caption.
        t2i_m: int64 (M,), how many other images come before the caption's own.
        captions_n: int64 (N,), how many captions each image has.
        images_nd, texts_md: L2-normalised embeddings.
        image_of_text_m: int64, the row of ``images_nd`` that each caption belongs to.
        captions: the texts, where they are known as words.
    """

    i2t_q: Tensor
    t2i_m: Tensor
    captions_n: Tensor
    images_nd: Tensor
    texts_md: Tensor
    image_of_text_m: Tensor
    captions: list[str] = field(default_factory=list)

    def of(self, way: Way) -> Tensor:
        """The ranks of one way."""
        return self.i2t_q if way == "i2t" else self.t2i_m

    def wrong(self, way: Way) -> Tensor:
        """How many wrong candidates each query of one way has: int64."""
        if way == "i2t":
            return len(self.t2i_m) - self.captions_n[self.captions_n > 0]
        return torch.full_like(self.t2i_m, len(self.captions_n) - 1)

    def blocks(self, way: Way, scale: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """Scores of blocks of queries with every candidate, times ``scale``, and which are right:
        float and bool (B, candidates)."""
        scaled_nd, texts_md = scale * self.images_nd, self.texts_md
        numbers_n = torch.arange(len(scaled_nd), device=scaled_nd.device)
        if way == "t2i":
            for rows in blocks_of(len(texts_md), len(scaled_nd)):
                own_bn = self.image_of_text_m[rows, None] == numbers_n
                yield (scaled_nd @ texts_md[rows].T).T, own_bn
            return
        asked_q = numbers_n[self.captions_n > 0]
        for rows in blocks_of(len(asked_q), len(texts_md)):
            own_bm = self.image_of_text_m == asked_q[rows, None]
            yield scaled_nd[asked_q[rows]] @ texts_md.T, own_bm


@contextmanager
def scores_within(megabytes: int) -> Iterator[None]:
    """Inside, scores and what is computed of them take so many MiB at most, or what those of one
    query take. It moves no figure but by the rounding of a product of matrices."""
    token = _within.set((megabytes << 20) // SCORE_BYTES)
    try:
        yield
    finally:
        _within.reset(token)


def scores_at_once() -> int:
    """How many scores there is room for."""
    within = _within.get()
    return SCORES_AT_ONCE if within is None else within


def blocks_of(queries: int, candidates: int) -> Iterator[slice]:
    """Rows of a matrix of scores, as many at once as there is room for."""
    step = max(1, scores_at_once() // max(1, candidates))
    for start in range(0, queries, step):
        yield slice(start, min(start + step, queries))


def parts_of(scores_bc: Tensor) -> Iterator[slice]:
    """Rows of a block of scores, few enough to be computed with in float64."""
    return blocks_of(len(scores_bc), _WORK * scores_bc.shape[1])


def rank_captions(
    model: DualEncoder, found: SplitEmbeddings, embed: TextEmbedder, *, split: str
) -> RetrievalRanks:
    """Rank the images and captions of a split both ways, on the model's device.

    Args:
        embed: embeds the captions, with this model.
        split: its name, for errors.

    Raises:
        DataError: no image has a caption.
    """
    inputs_nw, captions = found.by_picture()
    texts = [caption for own in captions for caption in own]
    if not texts:
        raise DataError(
            f"evaluate: retrieval needs captions, and no image of {split} has one; "
            "see data.captions"
        )
    counts_n = torch.tensor([len(own) for own in captions])
    owner_m = torch.arange(len(counts_n)).repeat_interleave(counts_n)
    texts_md = embed(texts).to(model.device)
    return rank_retrieval(inputs_nw.to(model.device), texts_md, owner_m.to(model.device), texts)


def rank_retrieval(
    images_nd: Tensor,
    texts_md: Tensor,
    image_of_text_m: Tensor,
    captions: Sequence[str] = (),
) -> RetrievalRanks:
    """Rank embeddings both ways.

    Args:
        images_nd, texts_md: L2-normalised float embeddings on one device.
        image_of_text_m: int64, the row of ``images_nd`` that each caption belongs to.
        captions: the texts, where they are known as words.

    Raises:
        DataError: no image has a caption.
    """
    captions_n = torch.bincount(image_of_text_m, minlength=len(images_nd))
    if not bool((captions_n > 0).any()):
        raise DataError("retrieval needs captions: no image of this split has one")
    embeddings, world = (images_nd, texts_md, image_of_text_m), _helpers.get()
    if world.size > 1:
        world.broadcast(True)
        for tensor in embeddings:
            world.hand_out(tensor, tensor.device)
        ranks_n, ranks_m = _rank_shared(world, *embeddings)
    else:
        ranks_n, ranks_m = image_ranks(*embeddings), caption_ranks(*embeddings)
    return RetrievalRanks(
        ranks_n[captions_n > 0],
        ranks_m,
        captions_n,
        images_nd,
        texts_md,
        image_of_text_m,
        list(captions),
    )


@contextmanager
def helped(world: World) -> Iterator[None]:
    """Inside, on the first rank, retrievals are ranked by all ranks: the others are in
    :func:`help_first`, which this ends on its way out."""
    token = _helpers.set(world)
    try:
        yield
    except Exception:  # of what ends the process the others hear by themselves
        world.broadcast(False)
        raise
    finally:
        _helpers.reset(token)
    world.broadcast(False)


def help_first(world: World, device: torch.device) -> int:
    """On every rank but the first: take a share of each retrieval, until the first is out of
    :func:`helped`; how many that were. Its embeddings are on every rank meanwhile.

    Args:
        device: where this rank's model is.
    """
    count = 0
    while world.broadcast(None):
        handed = [world.hand_out(None, device) for _ in range(3)]
        with suppress(TrainingError):  # the first raises it, and goes on to say that it is out
            _rank_shared(world, *handed)
        count += 1
    return count


def _rank_shared(
    world: World, images_nd: Tensor, texts_md: Tensor, image_of_text_m: Tensor
) -> tuple[Tensor, Tensor]:
    """:func:`image_ranks` and :func:`caption_ranks`, a share of each by every rank."""
    embeddings, turn = (images_nd, texts_md, image_of_text_m), (world.rank, world.size)

    def share() -> Tensor:
        return torch.cat([image_ranks(*embeddings, turn), caption_ranks(*embeddings, turn)]).cpu()

    every = torch.stack(world.together(share, (Exception,))).sum(dim=0).to(images_nd.device)
    return every[: len(images_nd)], every[len(images_nd) :]


def image_ranks(
    images_nd: Tensor,
    texts_md: Tensor,
    image_of_text_m: Tensor,
    turn: tuple[int, int] = (0, 1),
) -> Tensor:
    """Count the captions of other images before each image's best own one: int64 (N,).

    An image without a caption gets M, as good as never found.

    Args:
        images_nd, texts_md, image_of_text_m: see :func:`rank_retrieval`.
        turn: r of W: of the blocks of queries every W-th alone, from the r-th on; 0 of the others.
    """
    total_n, total_m = len(images_nd), len(texts_md)
    ranks_n = torch.zeros(total_n, dtype=torch.int64, device=images_nd.device)
    order_m = image_of_text_m.argsort(stable=True)
    starts = torch.searchsorted(
        image_of_text_m[order_m], torch.arange(total_n + 1, device=order_m.device)
    ).tolist()
    for rows in _turns(blocks_of(total_n, min(total_m, CANDIDATES_AT_ONCE)), turn):
        own_k = order_m[starts[rows.start] : starts[rows.stop]]  # captions of these images
        row_k = image_of_text_m[own_k] - rows.start
        own_scores_k = _pair_scores(images_nd[rows], row_k, texts_md, own_k)
        least_c = own_scores_k.new_full((rows.stop - rows.start,), -math.inf)
        least_c.scatter_reduce_(0, row_k, own_scores_k, "amax")
        least_c -= TIE
        before_c = least_c.new_zeros(len(least_c), dtype=torch.int64)
        for first in range(0, total_m, CANDIDATES_AT_ONCE):
            scores_ct = images_nd[rows] @ texts_md[first : first + CANDIDATES_AT_ONCE].T
            here = (own_k >= first) & (own_k < first + CANDIDATES_AT_ONCE)
            row_h, place_h = row_k[here], own_k[here] - first
            own_h = ~(scores_ct[row_h, place_h] < least_c[row_h])
            before_c += scores_ct.shape[1] - _count_below(scores_ct, least_c)
            before_c.index_add_(0, row_h, own_h.long(), alpha=-1)
        has_c = torch.bincount(row_k, minlength=len(least_c)) > 0
        ranks_n[rows] = torch.where(has_c, before_c, total_m)
    return ranks_n


def caption_ranks(
    images_nd: Tensor,
    texts_md: Tensor,
    image_of_text_m: Tensor,
    turn: tuple[int, int] = (0, 1),
) -> Tensor:
    """Count the other images before each caption's own: int64 (M,).

    Args:
        images_nd, texts_md, image_of_text_m, turn: see :func:`image_ranks`.
    """
    total_n, total_m = len(images_nd), len(texts_md)
    ranks_m = torch.zeros(total_m, dtype=torch.int64, device=images_nd.device)
    for rows in _turns(blocks_of(total_m, min(total_n, CANDIDATES_AT_ONCE)), turn):
        rows_c = torch.arange(rows.stop - rows.start, device=ranks_m.device)
        own_c = _pair_scores(texts_md[rows], rows_c, images_nd, image_of_text_m[rows])
        # Its own image is always within the margin of itself, hence the 1.
        ranks_m[rows] = total_n - 1
        for first in range(0, total_n, CANDIDATES_AT_ONCE):
            scores_ct = texts_md[rows] @ images_nd[first : first + CANDIDATES_AT_ONCE].T
            ranks_m[rows] -= _count_below(scores_ct, own_c - TIE)
    return ranks_m


def _turns(blocks: Iterator[slice], turn: tuple[int, int]) -> Iterator[slice]:
    return islice(blocks, turn[0], None, turn[1])


def _pair_scores(one_nd: Tensor, rows_k: Tensor, other_md: Tensor, others_k: Tensor) -> Tensor:
    """Dot products of pairs of rows: (K,)."""
    pieces = [
        (one_nd[rows_k[part]] * other_md[others_k[part]]).sum(dim=1)
        for part in blocks_of(len(rows_k), one_nd.shape[1])
    ]
    return torch.cat(pieces) if pieces else one_nd.new_empty(0)


def _count_below(scores_cx: Tensor, least_c: Tensor) -> Tensor:
    """How many of each row are less than its ``least_c``: int64 (C,). The scores are written over:
    torch adds ones in the scores' own place 16 times as fast as it adds bools."""
    return scores_cx.lt_(least_c[:, None]).sum(dim=1).long()
