"""What a detector's ONNX file says of a picture's places, made into boxes; numpy alone.

The file gives of each place a row: its embedding, the shift and the scale of its similarities, and
its box. Texts are not in it, so that pictures which are asked for different things run in one
batch, and the number of queries is free. :mod:`ptft.model.detector` is the same in torch.

Shape letters: B batch, N places, D width of the joint space, Q queries, T boxes.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ptft.errors import ModelError
from ptft.preprocess.frame import Frame

__all__ = [
    "MORE",
    "FoundBoxes",
    "keep_surer",
    "place_boxes",
    "place_logits",
    "place_query",
    "sigmoid",
    "surest_boxes",
]

MORE = 6  # numbers of a row behind its embedding: shift, scale, and four of the box
_EPS = np.float32(1e-6)  # as OWL-ViT normalises
_RIVALS = 10  # times as many boxes as are wanted are looked at before overlapping ones go
_NEAR = 0.8  # of the best overlap, as OWL-ViT chooses what stands for a whole picture

_Floats = NDArray[np.float32]


@dataclass(frozen=True)
class FoundBoxes:
    """What is found in a picture, the surest first.

    Attributes:
        corners: float32 (T, 4), left, top, right, bottom in pixels of the upright picture.
        scores: float32 (T,), probabilities.
        labels: int64 (T,), which query each is.
    """

    corners: _Floats
    scores: _Floats
    labels: NDArray[np.int64]


def place_boxes(rows: _Floats) -> _Floats:
    """Centre x, centre y, width, height as shares of the input: (..., D + 6) -> (..., 4)."""
    return rows[..., -4:]


def place_logits(rows: _Floats, queries_qd: _Floats) -> _Floats:
    """Logits of queries of any length at each place: (..., D + 6), (Q, D) -> (..., Q)."""
    places, queries = rows[..., :-MORE], queries_qd
    places = places / (np.linalg.norm(places, axis=-1, keepdims=True) + _EPS)
    queries = queries / (np.linalg.norm(queries, axis=-1, keepdims=True) + _EPS)
    shift, scale = rows[..., -MORE, None], rows[..., 1 - MORE, None]
    return (places @ queries.T + shift) * scale


def sigmoid(logits: _Floats) -> _Floats:
    """Probabilities of logits, of any shape."""
    return (1 / (1 + np.exp(-logits.astype(np.float64)))).astype(np.float32)


def place_query(rows_nw: _Floats) -> _Floats:
    """What stands for a whole picture as a query, (N, D + 6) -> (D,), as OWL-ViT chooses it: of the
    places whose boxes cover it nearly best the one that is least like the mean of all."""
    centre, half = rows_nw[:, -4:-2], rows_nw[:, -2:] / 2
    low, high = np.clip(centre - half, 0, 1), np.clip(centre + half, 0, 1)
    inside = np.prod(high - low, axis=1)
    overlap = inside / (1 + np.prod(2 * half, axis=1) - inside)
    near = np.flatnonzero(overlap >= _NEAR * overlap.max())
    embedded = rows_nw[:, :-MORE]
    alike = embedded[near] @ embedded.mean(axis=0)
    return embedded[near[np.argmin(alike)]]


def surest_boxes(
    logits_nq: _Floats,
    shares_n4: _Floats,
    frame: Frame,
    *,
    most: int = 100,
    nms: float | None = None,
    threshold: float = 0.0,
) -> FoundBoxes:
    """The surest boxes of a picture: every query at every place counts by itself.

    Args:
        logits_nq, shares_n4: of a detector.
        frame: how the picture lies in what the detector saw.
        most: boxes that are kept.
        nms: of boxes of one query that overlap by more than this IoU only the surest stays; None or
            1: all do.
        threshold: probability below which nothing is told.

    Raises:
        ModelError: a number is not finite.
    """
    if not np.isfinite(logits_nq).all() or not np.isfinite(shares_n4).all():
        raise ModelError("a detection is not finite; the weights have diverged")
    nms = None if nms == 1 else nms  # whatever rounding makes of equal boxes
    flat = logits_nq.reshape(-1)
    wanted = min(len(flat), most if nms is None else most * _RIVALS)
    least = np.partition(flat, len(flat) - wanted)[len(flat) - wanted] if wanted else np.inf
    order = np.flatnonzero(flat >= least)  # of equals the first
    order = order[np.argsort(-flat[order], kind="stable")][:wanted]
    scores = sigmoid(flat[order])
    order, scores = order[scores >= threshold], scores[scores >= threshold]
    places, labels = np.divmod(order, logits_nq.shape[1])
    pixels = frame.to_pixels(shares_n4[places])
    if nms is not None:
        kept = keep_surer(_corners(shares_n4[places]), labels, nms)[:most]
        pixels, scores, labels = pixels[kept], scores[kept], labels[kept]
    return FoundBoxes(pixels, scores, labels.astype(np.int64))


def _corners(shares_t4: _Floats) -> _Floats:
    half = shares_t4[:, 2:] / 2
    return np.concatenate([shares_t4[:, :2] - half, shares_t4[:, :2] + half], axis=1)


def keep_surer(corners_t4: _Floats, labels_t: NDArray[np.int64], limit: float) -> NDArray[np.int64]:
    """Of ordered boxes the numbers of those that no surer one of their query overlaps."""
    area = np.prod(corners_t4[:, 2:] - corners_t4[:, :2], axis=1)
    left = np.arange(len(corners_t4))
    kept = []
    while len(left):
        first, left = left[0], left[1:]
        kept.append(first)
        low = np.maximum(corners_t4[first, :2], corners_t4[left, :2])
        high = np.minimum(corners_t4[first, 2:], corners_t4[left, 2:])
        shared = np.prod(np.clip(high - low, 0, None), axis=1)
        overlaps = shared > limit * (area[first] + area[left] - shared)
        left = left[~(overlaps & (labels_t[left] == labels_t[first]))]
    return np.array(kept, np.int64)
