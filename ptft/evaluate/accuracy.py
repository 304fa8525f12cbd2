"""Accuracy and calibration of class scores, the same for every kind of classifier."""

import torch
import torch.nn.functional as F
from torch import Tensor

from ptft.errors import DataError

__all__ = [
    "accuracy_figures",
    "calibration_error",
    "class_ranks",
    "expected_calibration_error",
]

BINS = 15  # as in Guo et al. 2017


def class_ranks(logits_nc: Tensor, labels_n: Tensor) -> Tensor:
    """How many wrong classes score at least as high as the right one: int64 (N,).

    Counting ties against the model keeps one whose logits are all equal, or NaN, at 0 accuracy.
    """
    own_n = logits_nc.gather(1, labels_n[:, None])
    return (~(logits_nc < own_n)).sum(dim=1) - 1


def calibration_error(logits_nc: Tensor, labels_n: Tensor) -> float:
    """:func:`expected_calibration_error` where each sample has one right class."""
    return expected_calibration_error(logits_nc, F.one_hot(labels_n, logits_nc.shape[1]).bool())


def expected_calibration_error(logits_nc: Tensor, own_nc: Tensor, *, bins: int = BINS) -> float:
    """Expected calibration error over equal-width bins of confidence.

    The mean over samples of |accuracy - confidence| of their bin; the bins are (low, high], the
    confidence is the largest softmax probability (Guo et al. 2017, On calibration of modern
    neural networks).

    Args:
        logits_nc: scores, scaled as the softmax over candidates wants them.
        own_nc: bool, which candidates are right; several where an image has several captions.
    """
    confidence_n, predicted_n = logits_nc.double().softmax(dim=1).max(dim=1)
    right_n = own_nc.gather(1, predicted_n[:, None])[:, 0].double()
    bin_n = (confidence_n * bins).ceil().long().clamp(1, bins) - 1
    gap = torch.zeros(bins, dtype=torch.float64, device=logits_nc.device)
    gap.index_add_(0, bin_n, right_n - confidence_n)
    return float(gap.abs().sum() / len(logits_nc))


def accuracy_figures(logits_nc: Tensor, labels_n: Tensor) -> dict[str, float | int]:
    """What a classifier's scores are worth.

    Args:
        logits_nc: scores, scaled as the model's softmax wants them.
        labels_n: int64, the right classes, on the same device.

    Returns:
        ``top1``, ``top5`` (with more than five classes), ``mean_per_class`` (over the classes that
        occur), ``ece`` and ``chance`` (1/C) as shares of 1; the counts ``images``, ``classes`` and
        ``classes_seen``.

    Raises:
        DataError: there is no sample, or a label is not a class.
    """
    total, classes = logits_nc.shape
    if total == 0:
        raise DataError("nothing to classify: no sample of this split has a label")
    if int(labels_n.min()) < 0 or int(labels_n.max()) >= classes:
        raise DataError(
            f"labels run from {int(labels_n.min())} to {int(labels_n.max())}; "
            f"allowed with {classes} classes: 0 to {classes - 1}"
        )
    ranks_n = class_ranks(logits_nc, labels_n)
    right_n = (ranks_n < 1).double()
    figures: dict[str, float | int] = {"top1": float(right_n.mean())}
    if classes > 5:
        figures["top5"] = float((ranks_n < 5).double().mean())
    seen_c = torch.bincount(labels_n, minlength=classes).double()
    right_c = torch.zeros_like(seen_c).index_add_(0, labels_n, right_n)
    figures["mean_per_class"] = float((right_c[seen_c > 0] / seen_c[seen_c > 0]).mean())
    figures["ece"] = calibration_error(logits_nc, labels_n)
    figures["chance"] = 1.0 / classes
    figures["images"] = total
    figures["classes"] = classes
    figures["classes_seen"] = int((seen_c > 0).sum())
    return figures
