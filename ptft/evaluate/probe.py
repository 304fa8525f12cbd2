"""The linear probe: logistic regression on frozen image embeddings.

The objective is scikit-learn's, so that C means the same: C * sum of cross-entropies + |W|^2 / 2
over the weights, not the bias. It is minimised here by torch's L-BFGS in float64, since that runs
where the embeddings are (ImageNet-sized probes on a GPU) and needs no further dependency; a test
holds it against scikit-learn's own minimum.

Embeddings are L2-normalised and centred on the training mean. As the bias is free, centring
changes no prediction at the minimum, and it makes the minimum far quicker to reach. So does what
the search runs in: the principal axes of the embeddings, each scaled by the curvature of the
objective along it where all classes are equally likely, H = S / C + lambda with their covariance S
(Boehning 1992, Multinomial logistic regression algorithm, bounds the Hessian by such a matrix).

An evaluation of the objective costs two products of (N, D) by (D, C) matrices; a fit takes some
hundred of them, the first in float32, which takes a quarter of the time, to a gradient of 1e-6, and
the last in float64; what is summed over samples and searched is float64 throughout. While C is
chosen, most fits end at a gradient of 1e-4, after some ten.
"""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ptft.errors import DataError
from ptft.evaluate.ranks import blocks_of

__all__ = ["C_GRID", "EARLY", "LinearProbe", "choose_c", "fit_probe", "stratified_fifth"]

C_GRID = tuple(10.0**power for power in range(-2, 6))
"""Decades that a probe is chosen from; its neighbours at half decades are tried after."""

C_FALLBACK = 1.0
"""With one image a class nothing can be held out. On embeddings of length 1 this is strong
regularisation, under which logistic regression comes close to the nearest class mean."""

EARLY = 1e-4
"""Largest entry of the mean loss's gradient at which most searches end while C is chosen, as
scikit-learn has it by default."""

_ITERATIONS = 1000
_GRADIENT = 1e-8  # largest entry of the mean loss's gradient at which L-BFGS stops
_CLOSE = 1e-6  # the same of the fits that are near the best, and how far products are of float32
_NEAR, _NEAR_SHARE = 2, 0.01  # held-out samples by which such a search may be off, or their share


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
            (embeddings_nd[rows].double() - self.mean_d) @ self.weight_cd.T + self.bias_c
            for rows in blocks_of(len(embeddings_nd), max(self.weight_cd.shape))
        ]
        return torch.cat(pieces).float()


def fit_probe(
    embeddings_nd: Tensor,
    labels_n: Tensor,
    *,
    classes: int,
    c: float,
    start: LinearProbe | None = None,
    tolerance: float = _GRADIENT,
) -> LinearProbe:
    """Minimise the penalised cross-entropy.

    Args:
        embeddings_nd: L2-normalised, float32.
        labels_n: int64 on the same device, below ``classes``.
        classes: C; one that does not occur keeps its row and is never predicted with weight.
        c: inverse strength of the L2 penalty, as scikit-learn has it.
        start: begin at this probe (a neighbouring C's minimum); the minimum is the same.
        tolerance: largest entry of the mean loss's gradient at which the search stops.

    Raises:
        DataError: there are no embeddings.
    """
    total = len(embeddings_nd)
    if total == 0:
        raise DataError("the probe has nothing to learn from: no sample of train has a label")
    objective = _Objective(embeddings_nd, labels_n, classes, 1.0 / (c * total))
    if start is not None:
        objective.begin(start)
    optimizer = torch.optim.LBFGS(
        objective.searched,
        max_iter=_ITERATIONS,
        max_eval=_ITERATIONS * 2,
        history_size=20,
        line_search_fn="strong_wolfe",
    )
    stages = [(torch.float32, max(tolerance, _CLOSE)), (torch.float64, tolerance)]
    for objective.products, end in stages[: 1 if tolerance >= _CLOSE else 2]:
        optimizer.param_groups[0].update(tolerance_grad=end, tolerance_change=1e-5 * end)
        with torch.no_grad():
            optimizer.step(objective)
    weight_cd, bias_c = objective.found()
    return LinearProbe(weight_cd, bias_c, objective.mean_d, c, total)


class _Objective:
    """Mean cross-entropy + penalty * |W|^2 / 2, its gradient by hand and in pieces.

    Args:
        embeddings_nd, labels_n, classes: see ``fit_probe``.
        penalty: lambda = 1 / (C N), C the strength.

    Attributes:
        products: the type that samples are multiplied in; sums over blocks of them are float64.
        mean_d: the training mean.
        searched: weights along the axes (C, D) and biases (C,), scaled; 0 at first.
    """

    def __init__(
        self, embeddings_nd: Tensor, labels_n: Tensor, classes: int, penalty: float
    ) -> None:
        self.products = torch.float64
        self._embeddings_nd, self._labels_n, self._penalty = embeddings_nd, labels_n, penalty
        total, width = embeddings_nd.shape
        self._blocks = list(blocks_of(total, max(classes, width)))

        def zeros(*shape: int) -> Tensor:
            return embeddings_nd.new_zeros(shape, dtype=torch.float64)

        self.mean_d = zeros(width)
        for rows in self._blocks:
            self.mean_d += embeddings_nd[rows].double().sum(dim=0) / total
        covariance_dd = zeros(width, width)
        for rows in self._blocks:
            centred = self._centred(rows)
            covariance_dd += (centred.T @ centred).double() / total
        spread_d, self._axes_dd = torch.linalg.eigh(covariance_dd)
        self._scale_d = (spread_d.clamp(min=0.0) / classes + penalty).rsqrt()
        self._bias_scale = classes**0.5
        self.searched = [zeros(classes, width), zeros(classes)]

    def begin(self, probe: LinearProbe) -> None:
        """Search from a probe on, as the same function of an embedding."""
        weight_cd, bias_c = self.searched
        weight_cd.copy_(probe.weight_cd @ self._axes_dd / self._scale_d)
        moved_c = probe.weight_cd @ (self.mean_d - probe.mean_d)
        bias_c.copy_((probe.bias_c + moved_c) / self._bias_scale)

    def found(self) -> tuple[Tensor, Tensor]:
        """Weights (C, D) and biases (C,) for centred embeddings."""
        weight_cd, bias_c = self.searched
        return (weight_cd * self._scale_d) @ self._axes_dd.T, bias_c * self._bias_scale

    def __call__(self) -> Tensor:
        """The loss; its gradient is put at ``searched``."""
        weight_cd, bias_c = self.found()
        total = len(self._labels_n)
        loss = 0.5 * self._penalty * weight_cd.square().sum()
        weight_grad_cd, bias_grad_c = self._penalty * weight_cd, torch.zeros_like(bias_c)
        rows_cd, shift_c = weight_cd.to(self.products), bias_c.to(self.products)
        for rows in self._blocks:
            centred_bd, labels_b1 = self._centred(rows), self._labels_n[rows, None]
            scores_bc = torch.addmm(shift_c, centred_bd, rows_cd.T)
            scores_bc -= scores_bc.amax(dim=1, keepdim=True)
            own_b = scores_bc.gather(1, labels_b1)[:, 0].clone()
            sums_b = scores_bc.exp_().sum(dim=1)
            loss = loss + (sums_b.log() - own_b).double().sum() / total
            scores_bc /= sums_b[:, None] * total  # probabilities, less 1 at the right class
            scores_bc.scatter_add_(1, labels_b1, scores_bc.new_full(labels_b1.shape, -1 / total))
            weight_grad_cd += scores_bc.T @ centred_bd
            bias_grad_c += scores_bc.sum(dim=0)
        self.searched[0].grad = (weight_grad_cd @ self._axes_dd) * self._scale_d
        self.searched[1].grad = bias_grad_c * self._bias_scale
        return loss

    def _centred(self, rows: slice) -> Tensor:
        return self._embeddings_nd[rows].to(self.products) - self.mean_d.to(self.products)


def stratified_fifth(labels: np.ndarray, *, seed: int) -> np.ndarray:
    """Mark about a fifth of the samples, a fifth of every class: bool (N,).

    A class gives ``round(n / 5)`` of its n samples, at least one where it has two or more, and
    never its only one.
    """
    rng = np.random.default_rng(seed)
    held = np.zeros(len(labels), dtype=bool)
    by_label = np.argsort(labels, kind="stable")
    starts = np.unique(labels[by_label], return_index=True)[1]
    for group in np.split(by_label, starts[1:]):
        members = rng.permutation(group)
        number = max(1, round(len(members) / 5)) if len(members) > 1 else 0
        held[members[:number]] = True
    return held


def choose_c(embeddings_nd: Tensor, labels_n: Tensor, *, classes: int, seed: int) -> float:
    """Choose the C that is right most often on a held-out fifth of the training set.

    Of equals the one with the lowest cross-entropy there, so that an easy set does not end with the
    strongest penalty and no confidence. Tried are the values of ``C_GRID`` from the smallest up,
    every fit starting at the last and ending early; those that come close to the best are fitted
    further, and so are the half decades beside the best of them.
    """
    held = torch.from_numpy(stratified_fifth(labels_n.cpu().numpy(), seed=seed)).to(labels_n.device)
    if not bool(held.any()):
        return C_FALLBACK
    fit, fit_labels = embeddings_nd[~held], labels_n[~held]
    check, check_labels = embeddings_nd[held], labels_n[held]
    probes: dict[float, LinearProbe] = {}

    def try_c(c: float, start: LinearProbe | None, tolerance: float) -> tuple[int, float]:
        probes[c] = fit_probe(
            fit, fit_labels, classes=classes, c=c, start=start, tolerance=tolerance
        )
        logits = probes[c].logits(check).double()
        right = int((logits.argmax(dim=1) == check_labels).sum())
        return right, -float(F.cross_entropy(logits, check_labels))

    early = {}
    last = None
    for c in C_GRID:
        early[c] = try_c(c, last, EARLY)
        last = probes[c]
    least = max(early.values())[0] - max(_NEAR, round(_NEAR_SHARE * len(check_labels)))
    near = [c for c in C_GRID if early[c][0] >= least]
    score = {c: try_c(c, probes[c], _CLOSE) for c in near}
    best = max(near, key=score.__getitem__)
    for c in (best / 10**0.5, best * 10**0.5):
        score[c] = try_c(c, probes[best], _CLOSE)
    return max(score, key=score.__getitem__)
