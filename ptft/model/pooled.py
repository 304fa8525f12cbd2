"""A transformer of which one position is pooled: its last block, for that position alone.

Of the last block only keys and values are needed of every position; its queries, output map and
MLP at the others are work for nothing: 10 of its 12 square matrices. Leaving it out makes a step of
a 12-layer tower 7 % shorter. The numbers are the same but for the order of additions, and for the
last bits' sake it is done in training alone: in eval mode a tower is open_clip's to the bit, in an
exported graph too.

Shape letters: B batch, L length, F width.
"""

import math
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["run_pooled"]


def run_pooled(
    transformer: Any, x_blf: Tensor, position_b: Tensor | int, *, causal: bool = False
) -> Tensor:
    """open_clip's Transformer at one position of each sample: (B, L, F) -> (B, F).

    Args:
        position_b: int64 (B,), or one position for all.
        causal: a position attends to itself and those before it.
    """
    mask_ll = None
    if causal:  # made anew: slicing a tower's own makes an exporter exclude the full length
        length = x_blf.shape[1]
        mask_ll = torch.full((length, length), -math.inf, device=x_blf.device).triu(1)
    *before, last = transformer.resblocks
    if not _is_plain(transformer, last):
        return _take(transformer(x_blf, attn_mask=mask_ll), position_b)
    for block in before:
        x_blf = block(x_blf, attn_mask=mask_ll)
    normed_blf = last.ln_1(x_blf)
    query_b1f = _take(normed_blf, position_b)[:, None]
    row = None if mask_ll is None else _row(mask_ll, position_b, query_b1f, last.attn.num_heads)
    attended_bf = last.attention(query_b1f, normed_blf, normed_blf, attn_mask=row)[:, 0]
    y_bf = _take(x_blf, position_b) + last.ls_1(attended_bf)
    return y_bf + last.ls_2(last.mlp(last.ln_2(y_bf)))


def _is_plain(transformer: Any, block: Any) -> bool:
    """Whether a block learns and is open_clip's as it is: neither replaced nor sharded."""
    return (
        transformer.training
        and type(block).__name__ == "ResidualAttentionBlock"
        and type(block.attn) is nn.MultiheadAttention
        and transformer.batch_first
        and not transformer.grad_checkpointing
    )


def _row(mask_ll: Tensor, position_b: Tensor | int, query_b1f: Tensor, heads: int) -> Tensor:
    """The mask's row of each sample's position, for each head: (B * heads, 1, L)."""
    if isinstance(position_b, int):
        return mask_ll[position_b].expand(query_b1f.shape[0] * heads, 1, -1)
    return mask_ll[position_b].repeat_interleave(heads, dim=0)[:, None]


def _take(x_blf: Tensor, position_b: Tensor | int) -> Tensor:
    if isinstance(position_b, int):
        return x_blf[:, position_b]
    return x_blf[torch.arange(x_blf.shape[0], device=x_blf.device), position_b]
