"""Recall@k of embeddings that are there already, in both directions."""

from torch import Tensor

from ptft.evaluate.figures import recall_figures
from ptft.evaluate.ranks import rank_retrieval

__all__ = ["retrieval_figures"]


def retrieval_figures(
    images_nd: Tensor,
    texts_md: Tensor,
    image_of_text_m: Tensor,
    *,
    ks: list[int],
    caption_ids_m: Tensor | None = None,
) -> dict[str, float | int]:
    """Rank embeddings both ways (:mod:`ptft.evaluate.ranks` has the conventions) and count.

    Args:
        images_nd, texts_md: L2-normalised float embeddings on one device.
        image_of_text_m: int64, the row of ``images_nd`` that each caption belongs to.
        ks: cut-offs; one above the number of candidates is trivially reached, as is its chance.
        caption_ids_m: int64, equal for captions that are the same text; absent: not counted.

    Returns:
        See :func:`ptft.evaluate.figures.recall_figures`.

    Raises:
        DataError: no image has a caption.
    """
    ranks = rank_retrieval(images_nd, texts_md, image_of_text_m)
    return recall_figures(ranks, ks=ks, caption_ids_m=caption_ids_m)
