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

from ptft.compare.pooling import mixture, posterior
from ptft.compare.posterior import Belief

__all__ = ["pool"]

_ARMS = (1e-4, 0.01, 0.02, 0.04, 0.08, 0.15, 0.3)  # deviations of arms, the same at all budgets
_APART = (1e-4, 0.005, 0.01, 0.02, 0.04, 0.08, 0.15)  # of an arm at a budget


def pool(beliefs: Sequence[Belief], names: Sequence[Sequence[str]]) -> list[Belief]:
    """Pool beliefs over budgets.

    Args:
        beliefs: of each budget.
        names: of its arms; the same name is the same arm.
    """
    places = [(budget, name) for budget, own in enumerate(names) for name in own]
    mean = np.concatenate([belief.mean_a for belief in beliefs])
    error = block_diag(*[belief.cov_aa for belief in beliefs])
    same = np.array([[one[1] == other[1] for other in places] for one in places], float)
    levels = np.array([[place[0] == b for b in range(len(beliefs))] for place in places], float)
    found = [
        posterior(mean, error, levels, arm**2 * same + apart**2 * np.eye(len(mean)))
        for arm, apart in product(_ARMS, _APART)
    ]
    likelihoods = np.array([likelihood for likelihood, _ in found])
    weights = np.exp(likelihoods - likelihoods.max())
    whole = mixture(weights / weights.sum(), [belief for _, belief in found])
    ends = np.cumsum([len(own) for own in names])
    parts = [slice(end - len(own), end) for end, own in zip(ends, names, strict=True)]
    return [Belief(whole.mean_a[part], whole.cov_aa[part, part]) for part in parts]
