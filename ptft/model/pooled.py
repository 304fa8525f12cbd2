"""A transformer of which one position is pooled: its last block, for that position alone.

Of the last block only keys and values are needed of every position; its queries, output map and
MLP at the others are work for nothing: 10 of its 12 square matrices. Leaving it out makes a step of
a 12-layer tower 7 % shorter. The numbers are the same but for the order of additions, and for the
last bits' sake it is done in training alone: in eval mode a tower is open_clip's to the bit, in an
exported graph too.

Where each position sees only those before it, what lies behind the pooled one is work for nothing
too. On a CPU the rows up to it are packed and go through the maps and MLPs of all blocks without
padding; attention alone sees it. On a GPU their number would have to be waited for.

Shape letters: B batch, L length, F width, N rows of all texts that are not padding, H heads.
"""

import math
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["packs", "run_pooled"]


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
    if causal and isinstance(position_b, Tensor) and packs(transformer):
        x_blf = _run_packed(before, x_blf, position_b)
    else:
        for block in before:
            x_blf = block(x_blf, attn_mask=mask_ll)
    normed_blf = last.ln_1(x_blf)
    query_b1f = _take(normed_blf, position_b)[:, None]
    row = None if mask_ll is None else _row(mask_ll, position_b, query_b1f, last.attn.num_heads)
    attended_bf = last.attention(query_b1f, normed_blf, normed_blf, attn_mask=row)[:, 0]
    y_bf = _take(x_blf, position_b) + last.ls_1(attended_bf)
    return y_bf + last.ls_2(last.mlp(last.ln_2(y_bf)))


def packs(transformer: Any) -> bool:
    """Whether a causal transformer's blocks would run without padding."""
    first = next(transformer.parameters())
    return first.device.type == "cpu" and all(
        _is_plain(transformer, block) and _fuses(block.attn) for block in transformer.resblocks
    )


@dataclass(frozen=True)
class _Packing:
    """Where the N rows lie among B * L."""

    places_n: Tensor
    shape: tuple[int, int]

    def pack(self, x_blf: Tensor) -> Tensor:
        return x_blf.flatten(0, 1).index_select(0, self.places_n)

    def spread(self, x_nf: Tensor) -> Tensor:
        empty = x_nf.new_zeros(math.prod(self.shape), x_nf.shape[1])
        return empty.index_copy(0, self.places_n, x_nf).unflatten(0, self.shape)


def _run_packed(blocks: Any, x_blf: Tensor, position_b: Tensor) -> Tensor:
    """Blocks on the rows up to each text's position; the others come out as zeros."""
    count, length, _ = x_blf.shape
    read_bl = torch.arange(length) <= position_b[:, None]
    packing = _Packing(read_bl.flatten().nonzero()[:, 0], (count, length))
    x_nf = packing.pack(x_blf)
    for block in blocks:
        x_nf = x_nf + block.ls_1(_attend(block.attn, block.ln_1(x_nf), packing))
        x_nf = x_nf + block.ls_2(block.mlp(block.ln_2(x_nf)))
    return packing.spread(x_nf)


def _attend(attention: nn.MultiheadAttention, x_nf: Tensor, packing: _Packing) -> Tensor:
    """Causal self-attention of each text: (N, F) -> (N, F)."""
    joint_nf = F.linear(x_nf, attention.in_proj_weight, attention.in_proj_bias)
    split = packing.spread(joint_nf).unflatten(-1, (3, attention.num_heads, -1))
    query, key, value = split.permute(2, 0, 3, 1, 4)  # each (B, H, L, F / H)
    seen = F.scaled_dot_product_attention(query, key, value, is_causal=True)
    out: Tensor = attention.out_proj(packing.pack(seen.transpose(1, 2).flatten(2)))
    return out


def _fuses(attention: nn.MultiheadAttention) -> bool:
    """Whether an attention is nothing but one map to queries, keys and values, and one back."""
    plain = attention.in_proj_weight is not None and attention.bias_k is None
    return plain and not attention.add_zero_attn and not attention.dropout


def _is_plain(transformer: Any, block: Any) -> bool:
    """Whether a block learns and is open_clip's as it is: not replaced, hooked or sharded."""
    return (
        transformer.training
        and type(block).__name__ == "ResidualAttentionBlock"
        and type(block.attn) is nn.MultiheadAttention
        and transformer.batch_first
        and not transformer.grad_checkpointing
        and not any(part._forward_hooks or part._forward_pre_hooks for part in (block, block.attn))
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
