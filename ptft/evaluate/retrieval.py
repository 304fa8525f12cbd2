"""Retrieval between images and captions: recall@k in both directions.

Conventions, in the field's terms (Karpathy & Fei-Fei 2015, as ALBEF and BLIP evaluate):

- Image to text (i2t): an image is right at k if *any* of its captions is among its k best texts.
- Text to image (t2i): every caption is a query of its own, right if its image is among the k best.
- An equal caption of *another* image stays a wrong answer, as it does in published figures; how
  many captions have such a double stands in ``duplicate_captions``, since it bounds the recall.
- A tie counts against the model: a wrong candidate within ``TIE`` of the right one is ranked
  before it. A collapsed model, whose embeddings are all alike, then scores 0 and not 1; so does
  one that gives NaN, since what is not known to be worse counts as better.
"""

import math

import torch
from torch import Tensor

from ptft.errors import DataError

__all__ = ["TIE", "caption_ranks", "image_ranks", "retrieval_figures"]

TIE = 1e-6
"""Cosines closer than this are equal: a few times the rounding of a float32 dot product."""

_SCORES = 1 << 24  # scores held at once: 64 MiB of float32


def image_ranks(images_nd: Tensor, texts_md: Tensor, image_of_text_m: Tensor) -> Tensor:
    """Rank of each image's best caption among the texts, 0 the best.

    Only captions of other images can come before it.

    Args:
        images_nd: L2-normalised float embeddings.
        texts_md: the same of the captions, on the same device.
        image_of_text_m: int64, the row of ``images_nd`` that each caption belongs to.

    Returns:
        int64 (N,). An image without a caption gets M, as good as never found.
    """
    total_n, total_m = len(images_nd), len(texts_md)
    ranks_n = torch.empty(total_n, dtype=torch.int64, device=images_nd.device)
    step = max(1, _SCORES // max(1, total_m))
    for start in range(0, total_n, step):
        scores_cm = images_nd[start : start + step] @ texts_md.T
        rows_c = torch.arange(start, start + len(scores_cm), device=scores_cm.device)
        own_cm = image_of_text_m[None, :] == rows_c[:, None]
        best_c = scores_cm.masked_fill(~own_cm, -math.inf).amax(dim=1)
        before_c = (~(scores_cm < best_c[:, None] - TIE) & ~own_cm).sum(dim=1)
        ranks_n[start : start + step] = torch.where(own_cm.any(dim=1), before_c, total_m)
    return ranks_n


def caption_ranks(images_nd: Tensor, texts_md: Tensor, image_of_text_m: Tensor) -> Tensor:
    """Rank of each caption's own image among the images, 0 the best: int64 (M,)."""
    total_n, total_m = len(images_nd), len(texts_md)
    ranks_m = torch.empty(total_m, dtype=torch.int64, device=images_nd.device)
    step = max(1, _SCORES // max(1, total_n))
    for start in range(0, total_m, step):
        scores_cn = texts_md[start : start + step] @ images_nd.T
        own_c = image_of_text_m[start : start + step, None]
        own_scores_c = scores_cn.gather(1, own_c)
        # Its own image is always within the margin of itself, hence the 1.
        ranks_m[start : start + step] = (~(scores_cn < own_scores_c - TIE)).sum(dim=1) - 1
    return ranks_m


def retrieval_figures(
    images_nd: Tensor,
    texts_md: Tensor,
    image_of_text_m: Tensor,
    *,
    ks: list[int],
    caption_ids_m: Tensor | None = None,
) -> dict[str, float | int]:
    """Recall@k both ways, with what it is to be compared with.

    Args:
        images_nd, texts_md: L2-normalised float embeddings on one device.
        image_of_text_m: int64, the row of ``images_nd`` that each caption belongs to.
        ks: cut-offs; one above the number of candidates is trivially reached, as is its chance.
        caption_ids_m: int64, equal for captions that are the same text; absent: not counted.

    Returns:
        ``i2t_recall@k``, ``t2i_recall@k`` and what drawing blindly would reach
        (``i2t_chance@k``, ``t2i_chance@k``), as shares of 1; ``i2t_median_rank`` and
        ``t2i_median_rank`` (1 is the best); the counts ``images``, ``captions``,
        ``images_without_caption`` (left out) and ``duplicate_captions``.

    Raises:
        DataError: there is no image with a caption.
    """
    captions_n = torch.bincount(image_of_text_m, minlength=len(images_nd))
    kept_n = captions_n > 0
    if not bool(kept_n.any()):
        raise DataError("retrieval needs captions: no image of this split has one")
    # Images without a caption are no query, but they stay candidates for the captions.
    i2t_n = image_ranks(images_nd, texts_md, image_of_text_m)[kept_n]
    t2i_m = caption_ranks(images_nd, texts_md, image_of_text_m)
    figures: dict[str, float | int] = {}
    for k in ks:
        figures[f"i2t_recall@{k}"] = float((i2t_n < k).double().mean())
    for k in ks:
        figures[f"t2i_recall@{k}"] = float((t2i_m < k).double().mean())
    for k in ks:
        figures[f"i2t_chance@{k}"] = _chance(captions_n[kept_n], len(texts_md), k)
        figures[f"t2i_chance@{k}"] = min(1.0, k / len(images_nd))
    figures["i2t_median_rank"] = _median(i2t_n) + 1
    figures["t2i_median_rank"] = _median(t2i_m) + 1
    figures["images"] = len(images_nd)
    figures["captions"] = len(texts_md)
    figures["images_without_caption"] = int((~kept_n).sum())
    if caption_ids_m is not None:
        _, inverse_m, counts = torch.unique(caption_ids_m, return_inverse=True, return_counts=True)
        figures["duplicate_captions"] = int((counts[inverse_m] > 1).sum())
    return figures


def _chance(captions_n: Tensor, total: int, k: int) -> float:
    """Mean probability that k of ``total`` texts, drawn blindly, hold one of an image's own."""
    chance = 0.0
    counts, images = torch.unique(captions_n, return_counts=True)
    for own, number in zip(counts.tolist(), images.tolist(), strict=True):
        missed = 1.0  # C(total - own, k) / C(total, k), as a product that cannot overflow
        for drawn in range(min(k, total)):
            missed *= max(0, total - own - drawn) / (total - drawn)
        chance += number * (1.0 - missed)
    return chance / len(captions_n)


def _median(ranks: Tensor) -> float:
    """The middle rank; the mean of the two middle ones where their number is even."""
    return float(ranks.double().quantile(0.5)) if len(ranks) < 1 << 24 else float(ranks.median())
