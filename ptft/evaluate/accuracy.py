"""Accuracy and calibration of class scores, the same for every kind of classifier."""

import torch
from torch import Tensor

from ptft.errors import DataError

__all__ = ["accuracy_figures", "calibration_error", "class_ranks"]

BINS = 15  # as in Guo et al. 2017


def class_ranks(logits_NC: Tensor, labels_N: Tensor) -> Tensor:
    """How many wrong classes score at least as high as the right one: int64 (N,).

    Counting ties against the model keeps one whose logits are all equal at 0 accuracy.
    """
    own_N = logits_NC.gather(1, labels_N[:, None])
    return (logits_NC >= own_N).sum(dim=1) - 1


def calibration_error(logits_NC: Tensor, labels_N: Tensor, *, bins: int = BINS) -> float:
    """Expected calibration error over equal-width bins of confidence.

    The mean over samples of |accuracy - confidence| of their bin; the bins are (low, high], the
    confidence is the largest softmax probability (Guo et al. 2017, On calibration of modern
    neural networks).
    """
    confidence_N, predicted_N = logits_NC.double().softmax(dim=1).max(dim=1)
    right_N = (predicted_N == labels_N).double()
    bin_N = (confidence_N * bins).ceil().long().clamp(1, bins) - 1
    gap = torch.zeros(bins, dtype=torch.float64, device=logits_NC.device)
    gap.index_add_(0, bin_N, right_N - confidence_N)
    return float(gap.abs().sum() / len(labels_N))


def accuracy_figures(logits_NC: Tensor, labels_N: Tensor) -> dict[str, float | int]:
    """What a classifier's scores are worth.

    Args:
        logits_NC: scores, scaled as the model's softmax wants them.
        labels_N: int64, the right classes, on the same device.

    Returns:
        ``top1``, ``top5`` (with more than five classes), ``mean_per_class`` (over the classes that
        occur), ``ece`` and ``chance`` (1/C) as shares of 1; the counts ``images``, ``classes`` and
        ``classes_seen``.

    Raises:
        DataError: there is no sample, or a label is not a class.
    """
    total, classes = logits_NC.shape
    if total == 0:
        raise DataError("nothing to classify: no image of this split has a label")
    if int(labels_N.min()) < 0 or int(labels_N.max()) >= classes:
        raise DataError(
            f"labels run from {int(labels_N.min())} to {int(labels_N.max())}; "
            f"allowed with {classes} classes: 0 to {classes - 1}"
        )
    ranks_N = class_ranks(logits_NC, labels_N)
    right_N = (ranks_N < 1).double()
    figures: dict[str, float | int] = {"top1": float(right_N.mean())}
    if classes > 5:
        figures["top5"] = float((ranks_N < 5).double().mean())
    seen_C = torch.bincount(labels_N, minlength=classes).double()
    right_C = torch.zeros_like(seen_C).index_add_(0, labels_N, right_N)
    figures["mean_per_class"] = float((right_C[seen_C > 0] / seen_C[seen_C > 0]).mean())
    figures["ece"] = calibration_error(logits_NC, labels_N)
    figures["chance"] = 1.0 / classes
    figures["images"] = total
    figures["classes"] = classes
    figures["classes_seen"] = int((seen_C > 0).sum())
    return figures
