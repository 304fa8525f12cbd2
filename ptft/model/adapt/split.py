"""Fused attention taken apart into q, k, v and out, and put together again.

An adapter on a part of a fused weight has no layer to sit on: on ``nn.MultiheadAttention`` peft's
adapters of the output projection never run, since its forward reads the weight and does not call
the layer. Split, every part is a linear layer that is called. The split computes what the fused one
did; fused again, the weights have their old names, so a checkpoint is the plain architecture.
"""

from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ptft.errors import AdaptError

__all__ = ["SplitAttention", "SplitLinear", "fuse_attention", "split_attention"]


class SplitAttention(nn.Module):
    """``nn.MultiheadAttention`` of one width and batch first, as four linear layers.

    Shape letters: B batch, L tokens, W width, H heads.
    """

    def __init__(self, fused: nn.MultiheadAttention) -> None:
        super().__init__()
        assert fused.batch_first and fused.in_proj_weight is not None
        assert fused.bias_k is None and not fused.add_zero_attn and fused.dropout == 0.0
        self.embed_dim, self.num_heads = fused.embed_dim, fused.num_heads
        weights = fused.in_proj_weight.detach().chunk(3)
        biases = (None,) * 3 if fused.in_proj_bias is None else fused.in_proj_bias.detach().chunk(3)
        self.q_proj, self.k_proj, self.v_proj = map(_linear, weights, biases)
        bias = None if fused.out_proj.bias is None else fused.out_proj.bias.detach()
        self.out_proj = _linear(fused.out_proj.weight.detach(), bias)

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        *,
        need_weights: Literal[False] = False,
        attn_mask: Tensor | None = None,
    ) -> tuple[Tensor, None]:
        """Three (B, L, W) -> (B, L, W), and None for the weights, as the fused one returns them.

        Args:
            attn_mask: (L, L) or (B * H, L, L); added to the scores, or true where not attended.
        """
        assert not need_weights
        q_bhld = self._heads(self.q_proj(query))
        k_bhld = self._heads(self.k_proj(key))
        v_bhld = self._heads(self.v_proj(value))
        if attn_mask is not None:
            if attn_mask.dtype == torch.bool:  # the opposite sense of scaled_dot_product_attention
                attn_mask = attn_mask.logical_not()
            else:
                attn_mask = attn_mask.to(q_bhld.dtype)
            if attn_mask.ndim == 3:
                attn_mask = attn_mask.unflatten(0, (-1, self.num_heads))
        x_bhld = F.scaled_dot_product_attention(q_bhld, k_bhld, v_bhld, attn_mask=attn_mask)
        return self.out_proj(x_bhld.transpose(1, 2).flatten(2)), None

    def fused(self) -> nn.MultiheadAttention:
        """The same as ``nn.MultiheadAttention``."""
        parts = (self.q_proj, self.k_proj, self.v_proj)
        has_bias = parts[0].bias is not None
        fused = nn.utils.skip_init(
            nn.MultiheadAttention,
            self.embed_dim,
            self.num_heads,
            bias=has_bias,
            batch_first=True,
            device=self.out_proj.weight.device,
            dtype=self.out_proj.weight.dtype,
        )
        with torch.no_grad():
            fused.in_proj_weight.copy_(torch.cat([part.weight for part in parts]))
            fused.out_proj.weight.copy_(self.out_proj.weight)
            if has_bias:
                fused.in_proj_bias.copy_(torch.cat([part.bias for part in parts]))
                fused.out_proj.bias.copy_(self.out_proj.bias)
        return fused.train(self.training)

    def _heads(self, x_blw: Tensor) -> Tensor:
        return x_blw.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)


class SplitLinear(nn.Module):
    """timm's ``qkv`` layer as three; the outputs side by side, as the fused layer gives them."""

    def __init__(self, fused: nn.Linear) -> None:
        super().__init__()
        weights = fused.weight.detach().chunk(3)
        biases = (None,) * 3 if fused.bias is None else fused.bias.detach().chunk(3)
        self.q, self.k, self.v = map(_linear, weights, biases)

    def forward(self, x: Tensor) -> Tensor:
        """(..., W) -> (..., 3 W)."""
        return torch.cat([self.q(x), self.k(x), self.v(x)], dim=-1)

    def fused(self) -> nn.Linear:
        """The same as one layer."""
        parts = (self.q, self.k, self.v)
        bias = None if self.q.bias is None else torch.cat([part.bias.detach() for part in parts])
        return _linear(torch.cat([part.weight.detach() for part in parts]), bias)


def split_attention(tower: nn.Module, path: str) -> None:
    """Take the attention at ``path`` apart, in place.

    Raises:
        AdaptError: a fused attention of another kind.
    """
    attention: Any = tower.get_submodule(path)
    if isinstance(attention, nn.MultiheadAttention):
        tower.set_submodule(path, SplitAttention(attention).train(attention.training))
    elif type(attention).__name__ == "EvaAttention":
        _split_eva(attention)
    elif isinstance(attention.qkv, nn.Linear):
        attention.qkv = SplitLinear(attention.qkv).train(attention.training)
    else:
        raise AdaptError(f"adapt: {path}: {type(attention).__name__} cannot be split")


def fuse_attention(tower: nn.Module) -> None:
    """Put every attention that :func:`split_attention` took apart together again, in place."""
    for path, module in list(tower.named_modules()):
        if isinstance(module, SplitAttention | SplitLinear):
            tower.set_submodule(path, module.fused())
        elif getattr(module, "was_fused", False):
            _fuse_eva(module)


def _split_eva(attention: Any) -> None:
    """timm's EVA knows separate projections itself; keys have no bias."""
    q, k, v = attention.qkv.weight.detach().chunk(3)
    biased = attention.q_bias is not None
    attention.q_proj = _linear(q, attention.q_bias.detach() if biased else None)
    attention.k_proj = _linear(k, None)
    attention.v_proj = _linear(v, attention.v_bias.detach() if biased else None)
    attention.qkv = None
    if biased:
        attention.q_bias = attention.v_bias = attention.k_bias = None
    attention.was_fused = True


def _fuse_eva(attention: Any) -> None:
    parts = (attention.q_proj, attention.k_proj, attention.v_proj)
    attention.qkv = _linear(torch.cat([part.weight.detach() for part in parts]), None)
    if attention.q_proj.bias is not None:
        attention.q_bias = attention.q_proj.bias
        attention.v_bias = attention.v_proj.bias
        attention.k_bias = torch.zeros_like(attention.q_bias)
    attention.q_proj = attention.k_proj = attention.v_proj = None
    del attention.was_fused


def _linear(weight: Tensor, bias: Tensor | None) -> nn.Linear:
    """A layer with copies of weights."""
    layer = nn.utils.skip_init(
        nn.Linear,
        weight.shape[1],
        weight.shape[0],
        bias=bias is not None,
        device=weight.device,
        dtype=weight.dtype,
    )
    with torch.no_grad():
        layer.weight.copy_(weight)
        if bias is not None:
            layer.bias.copy_(bias)
    return layer
