"""How far a model's confidence may be trusted, and the one number that mends it.

Shape letters: Q queries, C candidates (classes, or the texts of a retrieval).
"""

import torch
from torch import Tensor

from ptft.evaluate.accuracy import BINS

__all__ = ["expected_calibration_error", "fit_temperature"]

_RANGE = (-5.0, 5.0)  # of log temperature; beyond it softmax is one-hot or flat anyway
_GOLDEN = (5**0.5 - 1) / 2
_STEPS = 60  # of golden section: the last interval is 3e-12 wide


def expected_calibration_error(logits_qc: Tensor, own_qc: Tensor, *, bins: int = BINS) -> float:
    """Mean |accuracy - confidence| over equal-width bins (Guo et al. 2017).

    Args:
        logits_qc: scores, scaled as the softmax over candidates wants them.
        own_qc: bool, which candidates are right; several where an image has several captions.
    """
    confidence_q, predicted_q = logits_qc.double().softmax(dim=1).max(dim=1)
    right_q = own_qc.gather(1, predicted_q[:, None])[:, 0].double()
    bin_q = (confidence_q * bins).ceil().long().clamp(1, bins) - 1
    gap = torch.zeros(bins, dtype=torch.float64, device=logits_qc.device)
    gap.index_add_(0, bin_q, right_q - confidence_q)
    return float(gap.abs().sum() / len(logits_qc))


def fit_temperature(logits_qc: Tensor, own_qc: Tensor) -> float:
    """The temperature at which the right candidates are likeliest; dividing by it mends confidence.

    Minimises the mean of -log of the right candidates' share by golden section over the logarithm
    (with one right candidate a query, the function is convex in 1/temperature). A temperature
    changes no prediction, since it changes no order.
    """
    logits_qc = logits_qc.double()
    own = logits_qc.masked_fill(~own_qc, -torch.inf)

    def loss(log_t: float) -> float:
        scale = torch.exp(torch.tensor(-log_t, dtype=torch.float64))
        return float(((logits_qc * scale).logsumexp(1) - (own * scale).logsumexp(1)).mean())

    low, high = _RANGE
    left, right = high - _GOLDEN * (high - low), low + _GOLDEN * (high - low)
    at_left, at_right = loss(left), loss(right)
    for _ in range(_STEPS):
        if at_left <= at_right:
            high, right, at_right = right, left, at_left
            left = high - _GOLDEN * (high - low)
            at_left = loss(left)
        else:
            low, left, at_left = left, right, at_right
            right = low + _GOLDEN * (high - low)
            at_right = loss(right)
    return float(torch.exp(torch.tensor((low + high) / 2, dtype=torch.float64)))
