"""The surest boxes by torch, written apart from ``ptft.onnx.boxes``: what its tests hold it to."""

import numpy as np
import torch

from ptft.detection import box_iou, corners
from ptft.errors import ModelError
from ptft.onnx.boxes import FoundBoxes
from ptft.preprocess.frame import Frame

__all__ = ["best_boxes"]


def best_boxes(
    logits_nq: torch.Tensor,
    shares_n4: torch.Tensor,
    frame: Frame,
    *,
    most: int = 100,
    nms: float | None = None,
    threshold: float = 0.0,
) -> FoundBoxes:
    """The surest boxes of a picture: every query at every place counts by itself.

    Args:
        logits_nq, shares_n4: of a detector, see ``ptft.model.detector.PlaceAnswers``.
        frame: how the picture lies in what the detector saw.
        most: boxes that are kept.
        nms: of boxes of one query that overlap by more than this IoU only the surest stays.
        threshold: probability below which nothing is told.

    Raises:
        ModelError: a score is not finite.
    """
    scores_nq = logits_nq.float().sigmoid()
    if not bool(torch.isfinite(scores_nq).all()) or not bool(torch.isfinite(shares_n4).all()):
        raise ModelError("a detection is not finite; the weights have diverged")
    queries = scores_nq.shape[1]
    flat = scores_nq.flatten()
    wanted = min(len(flat), most if nms is None else most * 10)
    order = flat.argsort(descending=True, stable=True)[:wanted]
    order = order[flat[order] >= threshold]
    if nms is not None:
        order = order[_suppress(corners(shares_n4.float()), order, queries, nms)][:most]
    pixels = frame.to_pixels(shares_n4[order // queries].float().cpu().numpy())
    return FoundBoxes(
        pixels,
        flat[order].cpu().numpy().astype(np.float32),
        (order % queries).cpu().numpy().astype(np.int64),
    )


def _suppress(
    boxes_n4: torch.Tensor, order: torch.Tensor, queries: int, limit: float
) -> torch.Tensor:
    """Which of the ordered (place, query) pairs stay: none overlaps a surer one of its query."""
    places, labels = order // queries, order % queries
    overlap = box_iou(boxes_n4[places], boxes_n4[places]) > limit
    rivals = overlap & (labels[:, None] == labels[None])
    kept = torch.ones(len(order), dtype=torch.bool)
    for row in range(len(order)):
        if kept[row]:
            kept[row + 1 :] &= ~rivals[row, row + 1 :].cpu()
    return kept.to(order.device)
