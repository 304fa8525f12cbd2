"""Functions of torch as an exported graph has them: few nodes, in the forms that onnxruntime fuses.

torch's exporter writes an attention with some thirty nodes, most of them about the sizes of its
keys, a GELU whose factors stand in an order that onnxruntime does not know, and the patches of a
picture as a convolution, which takes three times as long as the product of matrices that it is.
The numbers are the same but for the order of additions.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

__all__ = ["PlainOps"]


class PlainOps(TorchFunctionMode):
    """Inside, these functions are traced as they are written here."""

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is F.scaled_dot_product_attention:
            return _attention(*args, **kwargs)
        if func is F.gelu and kwargs.get("approximate", "none") == "none" and len(args) == 1:
            return _gelu(*args)
        if func is F.conv2d and not kwargs and _cuts_patches(*args):
            return _patches(*args)
        return func(*args, **kwargs)


def _attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """``F.scaled_dot_product_attention`` in eval mode."""
    if is_causal or enable_gqa or dropout_p:
        return F.scaled_dot_product_attention(
            query, key, value, attn_mask, dropout_p, is_causal, scale=scale, enable_gqa=enable_gqa
        )
    scale = 1 / math.sqrt(query.shape[-1]) if scale is None else scale
    scores = (query * scale) @ key.transpose(-2, -1)
    if attn_mask is not None and attn_mask.dtype == torch.bool:
        scores = scores.masked_fill(~attn_mask, -math.inf)
    elif attn_mask is not None:
        scores = scores + attn_mask
    return scores.softmax(dim=-1) @ value


def _gelu(x: Tensor) -> Tensor:
    return x * (torch.erf(x / math.sqrt(2.0)) + 1.0) * 0.5


def _cuts_patches(
    images: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> bool:
    """Whether a convolution reads each pixel once: patches beside each other."""
    size = list(weight.shape[2:])
    whole = all(side % patch == 0 for side, patch in zip(images.shape[2:], size, strict=True))
    return (
        whole
        and min(size) > 1
        and _pair(stride) == size
        and padding in ("valid", *_same(0))
        and dilation in _same(1)
        and groups == 1
    )


def _patches(images: Tensor, weight: Tensor, bias: Tensor | None, *_: Any) -> Tensor:
    """(B, C, H, W) to (B, D, H / P, W / Q), a product with the weight (D, C, P, Q)."""
    channels, (down, across) = weight.shape[1], weight.shape[2:]
    rows, columns = images.shape[2] // down, images.shape[3] // across
    cut = images.reshape(-1, channels, rows, down, columns, across).permute(0, 2, 4, 1, 3, 5)
    products = F.linear(cut.reshape(-1, channels * down * across), weight.flatten(1), bias)
    return (
        products.reshape(-1, rows * columns, len(weight))
        .transpose(1, 2)
        .unflatten(2, (rows, columns))
    )


def _same(number: int) -> tuple[Any, ...]:
    return (number, (number, number), [number, number])


def _pair(value: Any) -> list[Any]:
    return [value, value] if isinstance(value, int) else list(value)
