"""Retrieval between images and captions: recall@k in both directions.

Conventions, in the field's terms (Karpathy & Fei-Fei 2015, as ALBEF and BLIP evaluate):

- Image to text (i2t): an image is right at k if *any* of its captions is among its k best texts.
- Text to image (t2i): every caption is a query of its own, right if its image is among the k best.
- An equal caption of *another* image stays a wrong answer, as it does in published figures; how
  many captions have such a double stands in ``duplicate_captions``, since it bounds the recall.
- A tie counts against the model: a wrong candidate within ``TIE`` of the right one is ranked
  before it. A collapsed model, whose embeddings are all alike, then scores 0 and not 1.
"""

import math

import torch
from torch import Tensor

from ptft.errors import DataError

__all__ = ["TIE", "caption_ranks", "image_ranks", "retrieval_figures"]

TIE = 1e-6
"""Cosines closer than this are equal: a few times the rounding of a float32 dot product."""

_SCORES = 1 << 24  # scores held at once: 64 MiB of float32


def image_ranks(images_ND: Tensor, texts_MD: Tensor, image_of_text_M: Tensor) -> Tensor:
    """Rank of each image's best caption among the texts, 0 the best.

    Only captions of other images can come before it.

    Args:
        images_ND: L2-normalised float embeddings.
        texts_MD: the same of the captions, on the same device.
        image_of_text_M: int64, the row of ``images_ND`` that each caption belongs to.

    Returns:
        int64 (N,). An image without a caption gets M, as good as never found.
    """
    total_N, total_M = len(images_ND), len(texts_MD)
    ranks_N = torch.empty(total_N, dtype=torch.int64, device=images_ND.device)
    step = max(1, _SCORES // max(1, total_M))
    for start in range(0, total_N, step):
        scores_CM = images_ND[start : start + step] @ texts_MD.T
        rows_C = torch.arange(start, start + len(scores_CM), device=scores_CM.device)
        own_CM = image_of_text_M[None, :] == rows_C[:, None]
        best_C = scores_CM.masked_fill(~own_CM, -math.inf).amax(dim=1)
        before_C = ((scores_CM >= best_C[:, None] - TIE) & ~own_CM).sum(dim=1)
        ranks_N[start : start + step] = torch.where(own_CM.any(dim=1), before_C, total_M)
    return ranks_N


def caption_ranks(images_ND: Tensor, texts_MD: Tensor, image_of_text_M: Tensor) -> Tensor:
    """Rank of each caption's own image among the images, 0 the best: int64 (M,)."""
    total_N, total_M = len(images_ND), len(texts_MD)
    ranks_M = torch.empty(total_M, dtype=torch.int64, device=images_ND.device)
    step = max(1, _SCORES // max(1, total_N))
    for start in range(0, total_M, step):
        scores_CN = texts_MD[start : start + step] @ images_ND.T
        own_C = image_of_text_M[start : start + step, None]
        own_scores_C = scores_CN.gather(1, own_C)
        # Its own image is always within the margin of itself, hence the 1.
        ranks_M[start : start + step] = (scores_CN >= own_scores_C - TIE).sum(dim=1) - 1
    return ranks_M


def retrieval_figures(
    images_ND: Tensor,
    texts_MD: Tensor,
    image_of_text_M: Tensor,
    *,
    ks: list[int],
    caption_ids_M: Tensor | None = None,
) -> dict[str, float | int]:
    """Recall@k both ways, with what it is to be compared with.

    Args:
        images_ND, texts_MD: L2-normalised float embeddings on one device.
        image_of_text_M: int64, the row of ``images_ND`` that each caption belongs to.
        ks: cut-offs; one above the number of candidates is trivially reached, as is its chance.
        caption_ids_M: int64, equal for captions that are the same text; absent: not counted.

    Returns:
        ``i2t_recall@k``, ``t2i_recall@k`` and what drawing blindly would reach
        (``i2t_chance@k``, ``t2i_chance@k``), as shares of 1; ``i2t_median_rank`` and
        ``t2i_median_rank`` (1 is the best); the counts ``images``, ``captions``,
        ``images_without_caption`` (left out) and ``duplicate_captions``.

    Raises:
        DataError: there is no image with a caption.
    """
    captions_N = torch.bincount(image_of_text_M, minlength=len(images_ND))
    kept_N = captions_N > 0
    if not bool(kept_N.any()):
        raise DataError("retrieval needs captions: no image of this split has one")
    # Images without a caption are no query, but they stay candidates for the captions.
    i2t_N = image_ranks(images_ND, texts_MD, image_of_text_M)[kept_N]
    t2i_M = caption_ranks(images_ND, texts_MD, image_of_text_M)
    figures: dict[str, float | int] = {}
    for k in ks:
        figures[f"i2t_recall@{k}"] = float((i2t_N < k).double().mean())
    for k in ks:
        figures[f"t2i_recall@{k}"] = float((t2i_M < k).double().mean())
    for k in ks:
        figures[f"i2t_chance@{k}"] = _chance(captions_N[kept_N], len(texts_MD), k)
        figures[f"t2i_chance@{k}"] = min(1.0, k / len(images_ND))
    figures["i2t_median_rank"] = _median(i2t_N) + 1
    figures["t2i_median_rank"] = _median(t2i_M) + 1
    figures["images"] = len(images_ND)
    figures["captions"] = len(texts_MD)
    figures["images_without_caption"] = int((~kept_N).sum())
    if caption_ids_M is not None:
        _, inverse_M, counts = torch.unique(caption_ids_M, return_inverse=True, return_counts=True)
        figures["duplicate_captions"] = int((counts[inverse_M] > 1).sum())
    return figures


def _chance(captions_N: Tensor, total: int, k: int) -> float:
    """Mean probability that k of ``total`` texts, drawn blindly, hold one of an image's own."""
    chance = 0.0
    counts, images = torch.unique(captions_N, return_counts=True)
    for own, number in zip(counts.tolist(), images.tolist(), strict=True):
        missed = 1.0  # C(total - own, k) / C(total, k), as a product that cannot overflow
        for drawn in range(min(k, total)):
            missed *= max(0, total - own - drawn) / (total - drawn)
        chance += number * (1.0 - missed)
    return chance / len(captions_N)


def _median(ranks: Tensor) -> float:
    """The middle rank; the mean of the two middle ones where their number is even."""
    return float(ranks.double().quantile(0.5)) if len(ranks) < 1 << 24 else float(ranks.median())
