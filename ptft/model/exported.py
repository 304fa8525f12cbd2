"""A transformer as an exported graph has it: rows of all samples in one matrix, and its last block
at one position.

A map with its bias is one product of matrices there, and queries, keys and values need no more than
one transposition. The numbers are open_clip's but for the order of additions.

Shape letters: B batch, L length, F width, N rows of all samples, H heads.
"""

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["as_exported", "is_exported", "run_whole", "take"]

_EXPORTED: ContextVar[bool] = ContextVar("exported", default=False)


@contextlib.contextmanager
def as_exported() -> Iterator[None]:
    """Inside, towers in eval mode run as a graph that is exported has them."""
    token = _EXPORTED.set(True)
    try:
        yield
    finally:
        _EXPORTED.reset(token)


def is_exported() -> bool:
    """Whether a graph is being exported."""
    return _EXPORTED.get()


def run_whole(
    blocks: Any, x_blf: Tensor, position_b: Tensor | int, mask_ll: Tensor | None
) -> Tensor:
    """All blocks on all rows, but for the last, which is run at one position: (B, F)."""
    *before, last = blocks
    shape = x_blf.shape[:2]
    x_nf = x_blf.flatten(0, 1)
    for block in before:
        query, key, value = _heads(block.attn, block.ln_1(x_nf), shape)
        x_nf = x_nf + block.ls_1(_attended(block.attn, query, key, value, mask_ll))
        x_nf = x_nf + block.ls_2(block.mlp(block.ln_2(x_nf)))
    query, key, value = _heads(last.attn, last.ln_1(x_nf), shape)
    query = take(query.transpose(1, 2), position_b)[:, :, None]
    row = None
    if mask_ll is not None:
        row = mask_ll[position_b]
        row = row if isinstance(position_b, int) else row[:, None, None]  # (B, 1, 1, L)
    y_bf = take(x_nf.unflatten(0, shape), position_b)
    y_bf = y_bf + last.ls_1(_attended(last.attn, query, key, value, row))
    return y_bf + last.ls_2(last.mlp(last.ln_2(y_bf)))


def _heads(attention: nn.MultiheadAttention, x_nf: Tensor, shape: Any) -> tuple[Tensor, ...]:
    """Queries, keys and values, each (B, H, L, F / H); ``shape``: B and L."""
    joint = F.linear(x_nf, attention.in_proj_weight, attention.in_proj_bias)
    joint = joint.reshape(*shape, 3 * attention.num_heads, -1)
    return joint.transpose(1, 2).chunk(3, dim=1)


def _attended(
    attention: nn.MultiheadAttention,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
) -> Tensor:
    """(B, H, L, F / H) each to (B * L, F)."""
    seen = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
    out: Tensor = attention.out_proj(seen.transpose(1, 2).reshape(-1, attention.embed_dim))
    return out


def take(x_blf: Tensor, position_b: Tensor | int) -> Tensor:
    """A row of each sample: (B, L, ...) -> (B, ...)."""
    if isinstance(position_b, int):
        return x_blf[:, position_b]
    return x_blf[torch.arange(x_blf.shape[0], device=x_blf.device), position_b]
