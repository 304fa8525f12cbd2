"""Figures of a probe set, by the rules of :mod:`ptft.evaluate.ranks` and without torch.

Letters in shapes: N pictures, M captions, D width of the embeddings.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ptft.gate.bounds import KS
from ptft.gate.probe_set import ProbeSet

__all__ = ["agreement", "nearest_texts", "owners", "probe_accuracy", "probe_recall"]

_TIE = 1e-6  # cosines that are closer count against the model, as in ptft.evaluate.ranks


def probe_accuracy(found: Sequence[str], labels: Sequence[str]) -> dict[str, float]:
    """``top1`` and ``mean_per_class`` of the classes that were answered."""
    right = np.array([one == label for one, label in zip(found, labels, strict=True)])
    own = np.array(labels)
    means = [float(right[own == label].mean()) for label in sorted(set(labels))]
    return {"top1": float(right.mean()), "mean_per_class": float(np.mean(means))}


def probe_recall(
    images_nd: NDArray[np.float32], texts_md: NDArray[np.float32], owner_m: NDArray[np.int64]
) -> dict[str, float]:
    """``i2t_recall@k`` and ``t2i_recall@k``.

    Args:
        images_nd, texts_md: L2-normalised; every picture has a caption.
        owner_m: the picture of each caption.
    """
    scores_nm = images_nd @ texts_md.T
    own_nm = owner_m[None, :] == np.arange(len(images_nd))[:, None]
    best_n = np.where(own_nm, scores_nm, -np.inf).max(axis=1)
    # written so that NaN, which is not known to be worse, counts as better
    i2t_n = (~own_nm & ~(scores_nm < best_n[:, None] - _TIE)).sum(axis=1)
    right_m = scores_nm[owner_m, np.arange(len(owner_m))]
    t2i_m = (~own_nm & ~(scores_nm < right_m[None, :] - _TIE)).sum(axis=0)
    ways = (("i2t", i2t_n), ("t2i", t2i_m))
    return {f"{way}_recall@{k}": float((ranks < k).mean()) for way, ranks in ways for k in KS}


def owners(probe: ProbeSet) -> NDArray[np.int64]:
    """The picture of each caption, (M,)."""
    counts = [len(own) for own in probe.captions]
    return np.repeat(np.arange(len(counts)), counts)


def nearest_texts(
    images_nd: NDArray[np.float32], texts_md: NDArray[np.float32]
) -> NDArray[np.int64]:
    """The text that each picture is nearest to, (N,)."""
    return (images_nd @ texts_md.T).argmax(axis=1)


def agreement(one: Sequence[object], other: Sequence[object]) -> float:
    """The share of pictures to which two models give the same answer."""
    return float(np.mean([a == b for a, b in zip(one, other, strict=True)]))
