"""Which pairs of a batch are no negatives of each other: of one caption, one picture or one class.

Whoever holds the ids on the host finds that out there, and no GPU is waited for.
"""

import torch
from torch import Tensor

__all__ = ["pair_groups", "positive_pairs"]


def pair_groups(ids: Tensor) -> Tensor:
    """Which pairs are not each other's negatives: int64 (B,), equal for pairs of one group.

    Args:
        ids: (B,), as it is returned; or (B, 2), of captions and pictures: pairs that have either in
            common are of one group, and so are those that a chain of such pairs links.
    """
    if ids.ndim == 1:
        return ids
    columns = [column.unique(return_inverse=True)[1] for column in ids.unbind(dim=1)]
    group = torch.arange(len(ids), device=ids.device)
    while True:
        before = group
        for column in columns:  # each takes the least number among those it is equal to
            least = torch.full_like(group, len(ids)).scatter_reduce_(0, column, group, "amin")
            group = least[column]
        if torch.equal(before, group):
            return group


def positive_pairs(ids: Tensor, own: slice) -> tuple[Tensor, Tensor, Tensor]:
    """How many pairs are of each one's group (B,); and all such pairs of own rows with any column,
    row by row: rows counted from the first own one, and columns, (P,) each."""
    _, group_b, count = ids.unique(return_inverse=True, return_counts=True)
    counts_b, by_group = count[group_b], group_b.argsort(stable=True)
    begin_b = (count.cumsum(0) - count)[group_b]
    many_r = counts_b[own]
    row_p = torch.arange(len(many_r), device=ids.device).repeat_interleave(many_r)
    before_r = many_r.cumsum(0) - many_r
    number_p = torch.arange(len(row_p), device=ids.device) - before_r[row_p]
    return counts_b, row_p, by_group[begin_b[own][row_p] + number_p]
