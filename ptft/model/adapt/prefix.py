"""Learned tokens before a tower's own: visual prompts (Jia et al. 2022) and text prefixes.

Shape letters: B batch, L tokens of the tower, P tokens of the prefix, W width.

Notable choices:

- They stand before all others from the first block on and are taken away after the last, behind
  the position embeddings: pooling, the end mark's place and the length of the text are as without.
- In text no prefix token attends to a word, where words do not all see each other (a causal mask).
  So what a word sees stays the same whatever comes after it, and trimming stays exact.
- Deep prefixes replace those of the block before, as in VPT-deep.
- The tokens take part in attention from the first step, so the model starts near the base, but not
  at it; they start small (0.02, as CoOp's context does).
"""

import math
from collections.abc import Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["Prefix", "attach_prefix"]

_STD = 0.02  # CoOp (Zhou et al. 2022)
_MASKS = ("attn_mask", "attention_mask")
_MASK_PLACES = (3, 1)  # among the arguments of open_clip's block, and of transformers' layers


class Prefix(nn.Module):
    """What one block does with the prefix.

    Args:
        tokens: (P, W) to put before the others, or in place of the last block's; None: none.
        length: P.
        first, last: whether the block is the tower's first or last.
    """

    tokens: nn.Parameter | None

    def __init__(self, tokens: Tensor | None, length: int, *, first: bool, last: bool) -> None:
        super().__init__()
        self.register_parameter("tokens", None if tokens is None else nn.Parameter(tokens))
        self.length, self.first, self.last = length, first, last

    def before(self, x_blw: Tensor) -> Tensor:
        """(B, L, W), or (B, P + L, W) after the first block -> (B, P + L, W)."""
        if self.tokens is None:
            return x_blw
        words = x_blw if self.first else x_blw[:, self.length :]
        # not len(words), which an exporter takes for a constant
        tokens = self.tokens.to(words.dtype).expand(words.shape[0], -1, -1)
        return torch.cat([tokens, words], dim=1)

    def after(self, x_blw: Tensor) -> Tensor:
        """(B, P + L, W) -> the same, or without the prefix after the last block."""
        return x_blw[:, self.length :] if self.last else x_blw

    def widen(self, mask: Tensor) -> Tensor:
        """A mask over L tokens -> one over P + L.

        Every token sees the prefix. What a prefix token sees beside the prefix: under open_clip's
        mask of words, (L, L) or (B * H, L, L) and added, nothing, since it may be causal; under
        transformers' mask of padding, (B, 1, 1 or L, L) with equal rows, what all tokens see.
        """
        wide = F.pad(mask, (self.length, 0), value=mask.dtype == torch.bool)
        if mask.ndim == 4:
            if mask.shape[-2] == 1:
                return wide
            rows = wide[..., :1, :].expand(*wide.shape[:-2], self.length, wide.shape[-1])
        else:
            words = mask.new_full((*mask.shape[:-2], self.length, mask.shape[-1]), -math.inf)
            rows = F.pad(words, (self.length, 0))
        return torch.cat([rows, wide], dim=-2)


def attach_prefix(
    tower: nn.Module,
    blocks: Sequence[str],
    *,
    length: int,
    depth: Literal["shallow", "deep"],
    width: int,
) -> None:
    """Put a prefix of tokens of a width into a tower's blocks, in place, drawn from torch's global
    random state."""
    like = next(tower.parameters())
    for index, name in enumerate(blocks):
        first, last = index == 0, index == len(blocks) - 1
        tokens = torch.randn(length, width) * _STD if first or depth == "deep" else None
        if tokens is not None:
            tokens = tokens.to(like.device, like.dtype)
        block: Any = tower.get_submodule(name)
        block.prefix = Prefix(tokens, length, first=first, last=last)
        block.register_forward_pre_hook(_before, with_kwargs=True)
        block.register_forward_hook(_after)


def _before(block: Any, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
    # The prefix is found on the block and not bound here, so that a copied model uses its own.
    prefix: Prefix = block.prefix
    tokens, *others = args
    for place, value in enumerate(others):
        if place + 1 in _MASK_PLACES and isinstance(value, Tensor):
            others[place] = prefix.widen(value)
    masks = {name: prefix.widen(kwargs[name]) for name in _MASKS if kwargs.get(name) is not None}
    return (prefix.before(tokens), *others), {**kwargs, **masks}


def _after(block: Any, args: tuple, output: Any) -> Any:
    if isinstance(output, tuple):
        return (block.prefix.after(output[0]), *output[1:])
    return block.prefix.after(output)
