"""The linear probe: logistic regression on frozen image embeddings.

The objective is scikit-learn's, so that C means the same: C * sum of cross-entropies + |W|^2 / 2
over the weights, not the bias. It is minimised here by torch's L-BFGS in float64, since that runs
where the embeddings are (ImageNet-sized probes on a GPU) and needs no further dependency; a test
holds it against scikit-learn's own minimum.

Embeddings are L2-normalised and centred on the training mean. As the bias is free, centring
changes no prediction at the minimum, and it makes the minimum far quicker to reach.
"""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ptft.errors import DataError

__all__ = ["C_GRID", "ROWS_AT_ONCE", "LinearProbe", "choose_c", "fit_probe", "stratified_fifth"]

C_GRID = tuple(10.0**power for power in range(-2, 6))
"""Decades that a probe is chosen from; its neighbours at half decades are tried after."""

C_FALLBACK = 1.0
"""With one image a class nothing can be held out. On embeddings of length 1 this is strong
regularisation, under which logistic regression comes close to the nearest class mean."""

ROWS_AT_ONCE = 1 << 16  # embeddings turned into float64 at once
_ITERATIONS = 1000
_GRADIENT = 1e-8  # largest entry of the mean loss's gradient at which L-BFGS stops


@dataclass(frozen=True)
class LinearProbe:
    """A fitted probe.

    Attributes:
        weight_cd, bias_c: float64, for centred embeddings.
        mean_d: the training mean that is taken off.
        c: inverse strength of the L2 penalty.
        samples: how many it was fitted to.
    """

    weight_cd: Tensor
    bias_c: Tensor
    mean_d: Tensor
    c: float
    samples: int

    def logits(self, embeddings_nd: Tensor) -> Tensor:
        """Score embeddings: float32 (N, C)."""
        pieces = [
            (rows.double() - self.mean_d) @ self.weight_cd.T + self.bias_c
            for rows in embeddings_nd.split(ROWS_AT_ONCE)
        ]
        return torch.cat(pieces).float()


def fit_probe(
    embeddings_nd: Tensor,
    labels_n: Tensor,
    *,
    classes: int,
    c: float,
    start: LinearProbe | None = None,
) -> LinearProbe:
    """Minimise the penalised cross-entropy.

    Args:
        embeddings_nd: L2-normalised, float32.
        labels_n: int64 on the same device, below ``classes``.
        classes: C; one that does not occur keeps its row and is never predicted with weight.
        c: inverse strength of the L2 penalty, as scikit-learn has it.
        start: begin at this probe (a neighbouring C's minimum); the minimum is the same.

    Raises:
        DataError: there are no embeddings.
    """
    total, width = embeddings_nd.shape
    if total == 0:
        raise DataError("the probe has nothing to learn from: no sample of train has a label")
    device = embeddings_nd.device
    mean_d = embeddings_nd.double().mean(dim=0)
    weight_cd = torch.zeros(classes, width, dtype=torch.float64, device=device)
    bias_c = torch.zeros(classes, dtype=torch.float64, device=device)
    if start is not None:
        weight_cd.copy_(start.weight_cd)
        # Moved to this mean, so that the start is the same function of the embedding.
        bias_c.copy_(start.bias_c + start.weight_cd @ (mean_d - start.mean_d))
    optimizer = torch.optim.LBFGS(
        [weight_cd, bias_c],
        max_iter=_ITERATIONS,
        max_eval=_ITERATIONS * 2,
        tolerance_grad=_GRADIENT,
        tolerance_change=1e-13,
        history_size=20,
        line_search_fn="strong_wolfe",
    )

    def objective() -> Tensor:
        """Mean cross-entropy + |W|^2 / (2 C N), its gradient by hand and in pieces."""
        penalty = 1.0 / (c * total)
        loss = 0.5 * penalty * weight_cd.square().sum()
        weight_cd.grad, bias_c.grad = penalty * weight_cd, torch.zeros_like(bias_c)
        for rows, labels in zip(
            embeddings_nd.split(ROWS_AT_ONCE), labels_n.split(ROWS_AT_ONCE), strict=True
        ):
            centred = rows.double() - mean_d
            log_p = torch.log_softmax(centred @ weight_cd.T + bias_c, dim=1)
            loss = loss - log_p.gather(1, labels[:, None]).sum() / total
            error = log_p.exp()
            error[torch.arange(len(labels), device=device), labels] -= 1.0
            weight_cd.grad += error.T @ centred / total
            bias_c.grad += error.sum(dim=0) / total
        return loss

    with torch.no_grad():
        optimizer.step(objective)
    return LinearProbe(weight_cd, bias_c, mean_d, c, total)


def stratified_fifth(labels: np.ndarray, *, seed: int) -> np.ndarray:
    """Mark about a fifth of the samples, a fifth of every class: bool (N,).

    A class gives ``round(n / 5)`` of its n samples, at least one where it has two or more, and
    never its only one.
    """
    rng = np.random.default_rng(seed)
    held = np.zeros(len(labels), dtype=bool)
    for label in np.unique(labels):
        members = rng.permutation(np.flatnonzero(labels == label))
        number = max(1, round(len(members) / 5)) if len(members) > 1 else 0
        held[members[:number]] = True
    return held


def choose_c(embeddings_nd: Tensor, labels_n: Tensor, *, classes: int, seed: int) -> float:
    """Choose the C that is right most often on a held-out fifth of the training set.

    Of equals the one with the lowest cross-entropy there, so that an easy set does not end with the
    strongest penalty and no confidence. Tried are the values of ``C_GRID`` from the smallest up,
    every fit starting at the last, and then the half decades beside the best one.
    """
    held = torch.from_numpy(stratified_fifth(labels_n.cpu().numpy(), seed=seed)).to(labels_n.device)
    if not bool(held.any()):
        return C_FALLBACK
    fit, fit_labels = embeddings_nd[~held], labels_n[~held]
    check, check_labels = embeddings_nd[held], labels_n[held]
    score: dict[float, tuple[int, float]] = {}
    probes: dict[float, LinearProbe] = {}

    def try_c(c: float, start: LinearProbe | None) -> None:
        probes[c] = fit_probe(fit, fit_labels, classes=classes, c=c, start=start)
        logits = probes[c].logits(check).double()
        right = int((logits.argmax(dim=1) == check_labels).sum())
        score[c] = (right, -float(F.cross_entropy(logits, check_labels)))

    last = None
    for c in C_GRID:
        try_c(c, last)
        last = probes[c]
    best = max(C_GRID, key=score.__getitem__)
    for c in (best / 10**0.5, best * 10**0.5):
        try_c(c, probes[best])
    return max(score, key=score.__getitem__)
