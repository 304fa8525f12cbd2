"""Arms behave alike at different budgets: partial pooling of what is believed of them.

An arm's figure at a budget is the budget's own, plus what the arm adds at every budget, plus what
it adds at this one; the two additions are normal around none. How far arms lie apart, and how far
one arm does from budget to budget, is not known: a grid of both is weighed by the likelihood of
what was measured, with the budgets' own figures integrated out (REML; Patterson & Thompson 1971).
"""

from collections.abc import Sequence
from itertools import product

import numpy as np
from scipy.linalg import block_diag

from ptft.compare.posterior import Belief

__all__ = ["pool"]

_ARMS = (1e-4, 0.01, 0.02, 0.04, 0.08, 0.15, 0.3)  # deviations of arms, the same at all budgets
_APART = (1e-4, 0.005, 0.01, 0.02, 0.04, 0.08, 0.15)  # of an arm at a budget
_LEAST = 1e-8  # added to what was measured without error


def pool(beliefs: Sequence[Belief], names: Sequence[Sequence[str]]) -> list[Belief]:
    """Pool beliefs over budgets.

    Args:
        beliefs: of each budget.
        names: of its arms; the same name is the same arm.
    """
    places = [(budget, name) for budget, own in enumerate(names) for name in own]
    y = np.concatenate([belief.mean_a for belief in beliefs])
    noise = block_diag(*[belief.cov_aa for belief in beliefs]) + _LEAST * np.eye(len(y))
    same = np.array([[one[1] == other[1] for other in places] for one in places], float)
    x = np.array([[place[0] == b for b in range(len(beliefs))] for place in places], float)
    found = []
    for arm, apart in product(_ARMS, _APART):
        prior = arm**2 * same + apart**2 * np.eye(len(y))
        whole = noise + prior
        inner = x.T @ np.linalg.solve(whole, x)
        beta = np.linalg.solve(inner, x.T @ np.linalg.solve(whole, y))
        left = y - x @ beta
        likelihood = -0.5 * (
            np.linalg.slogdet(whole)[1]
            + np.linalg.slogdet(inner)[1]
            + left @ np.linalg.solve(whole, left)
        )
        gain = np.linalg.solve(whole, prior).T
        bare = x - gain @ x
        cov = prior - gain @ prior + bare @ np.linalg.solve(inner, bare.T)
        found.append((float(likelihood), x @ beta + gain @ left, cov))
    weights = np.exp(np.array([one[0] for one in found]) - max(one[0] for one in found))
    weights /= weights.sum()
    mean = np.einsum("g,gn->n", weights, np.stack([one[1] for one in found]))
    covs = [one[2] + np.outer(one[1] - mean, one[1] - mean) for one in found]
    cov = np.einsum("g,gnm->nm", weights, np.stack(covs))
    ends = np.cumsum([len(own) for own in names])
    return [
        Belief(mean[end - len(own) : end], cov[end - len(own) : end, end - len(own) : end])
        for end, own in zip(ends, names, strict=True)
    ]
