"""A tower in two parts: its trunk, and the projection that learns when the tower is locked.

``project(tower, trunk(x))`` is ``tower(x)``: the features of a locked trunk can be kept, and its
projection still learn.

Of a transformer of which one position is pooled, the last block runs for that position alone: only
keys and values are needed of every position; queries, output map and MLP at the others are work for
nothing: 10 of its 12 square matrices. Leaving it out makes a step of a 12-layer tower 7 % shorter.
The numbers are the same but for the order of additions, and for the last bits' sake it is done in
training alone, and in exported graphs: in eval mode a tower is open_clip's to the bit.

Where each position sees only those before it, what lies behind the pooled one is work for nothing
too. On a CPU the rows up to it are packed and go through the maps and MLPs of all blocks without
padding; attention alone sees it. On a GPU their number would have to be waited for.

An exported graph has the rows of all samples in one matrix: a map with its bias is one product of
matrices there, and queries, keys and values need no more than one transposition.

Shape letters: B batch, F width of a trunk's features, D width of the joint space, L length, N rows
of all samples (packed: those that are not padding), H heads.
"""

import contextlib
import math
from collections.abc import Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ptft.errors import ModelError

__all__ = [
    "as_exported",
    "image_trunk",
    "is_exported",
    "packs",
    "packs_texts",
    "project",
    "run_pooled",
    "text_trunk",
]

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


def image_trunk(tower: Any, images: Tensor) -> Tensor:
    """float (B, 3, H, W), normalised pixels -> features (B, F), what the projection is given.

    Raises:
        ModelError: the tower's projection is given more than one row a picture.
    """
    match type(tower).__name__:
        case "VisionTransformer" if tower.attn_pool is None and tower.pool_type == "tok":
            features = tower.ln_post(run_pooled(tower.transformer, tower._embeds(images), 0))
        case "VisionTransformer":
            features, _ = tower._pool(tower.transformer(tower._embeds(images)))
        case "ModifiedResNet":
            features = _resnet_trunk(tower, images)
        case "TimmModel" if not _has_weights(tower.trunk.get_classifier()):
            features = tower.trunk(images)
        case "TimmModel":  # the network's own classifier is the projection
            maps = tower.trunk.forward_features(images)
            features = tower.trunk.forward_head(maps, pre_logits=True)
        case kind:
            raise ModelError(f"{kind}: not an image tower that ptft knows")
    if features.ndim != 2:
        raise ModelError("the part of the tower that learns begins before its pooling")
    return features


def text_trunk(tower: Any, tokens: Tensor) -> Tensor:
    """int64 (B, L) -> features (B, F), what the projection is given.

    open_clip's own tower leaves the causal mask uncut; here L is any length up to the context's.
    """
    if type(tower).__name__ == "TextTransformer":
        return _native_text_trunk(tower, tokens)
    mask = (tokens != tower.config.pad_token_id).long()
    return tower.pooler(tower.transformer(input_ids=tokens, attention_mask=mask), mask)


def packs_texts(tower: Any) -> bool:
    """Whether a text tower leaves padding out by itself, as it stands."""
    return (
        type(tower).__name__ == "TextTransformer"
        and tower.attn_mask is not None
        and tower.pool_type in ("eos", "argmax")
        and packs(tower.transformer)
    )


def project(tower: Any, features: Tensor) -> Tensor:
    """Features (B, F) of a tower's trunk -> embeddings (B, D), of any length."""
    match type(tower).__name__:
        case "VisionTransformer":
            return features if tower.proj is None else features @ tower.proj
        case "ModifiedResNet":
            return tower.attnpool.c_proj(features)
        case "TimmModel" if not _has_weights(tower.trunk.get_classifier()):
            return tower.head(features)
        case "TimmModel":
            return tower.head(tower.trunk.get_classifier()(features))
        case "TextTransformer" if isinstance(tower.text_projection, nn.Parameter):
            return features @ tower.text_projection
        case "TextTransformer":
            return features if tower.text_projection is None else tower.text_projection(features)
        case "HFTextEncoder":
            return tower.proj(features)
        case kind:
            raise ModelError(f"{kind}: not a tower that ptft knows")


def _has_weights(module: nn.Module) -> bool:
    return next(module.parameters(), None) is not None


def _resnet_trunk(tower: Any, images: Tensor) -> Tensor:
    """CLIP's ResNet up to its attention pool's last layer: that pool's forward, of which only the
    first query is used, without ``c_proj``."""
    pool = tower.attnpool
    maps = tower.layer4(tower.layer3(tower.layer2(tower.layer1(tower.stem(images)))))
    x_nbc = maps.flatten(2).permute(2, 0, 1)
    x_nbc = torch.cat([x_nbc.mean(dim=0, keepdim=True), x_nbc], dim=0)
    x_nbc = x_nbc + pool.positional_embedding[:, None, :].to(x_nbc.dtype)
    query, key, value = (
        layer(x).unflatten(-1, (pool.num_heads, -1)).permute(1, 2, 0, 3)  # (B, heads, n, width)
        for layer, x in ((pool.q_proj, x_nbc[:1]), (pool.k_proj, x_nbc), (pool.v_proj, x_nbc))
    )
    return F.scaled_dot_product_attention(query, key, value).flatten(1)


def _native_text_trunk(text: Any, tokens: Tensor) -> Tensor:
    """open_clip's TextTransformer.forward up to its projection, for any L."""
    dtype = text.transformer.get_cast_dtype()
    x_blf = text.token_embedding(tokens).to(dtype)
    x_blf = x_blf + text.positional_embedding[: tokens.shape[1]].to(dtype)
    position_b: Tensor | int
    match text.pool_type:
        case "first":
            position_b = 0
        case "last":
            position_b = -1
        case "eos":
            position_b = tokens.eq(text.eos_id).int().argmax(dim=-1)
        case "argmax":  # CLIP's end mark has the highest id
            position_b = tokens.argmax(dim=-1)
        case other:
            raise ModelError(f"pool_type: {other!r}; allowed: first, last, eos, argmax")
    causal = text.attn_mask is not None
    return text.ln_final(run_pooled(text.transformer, x_blf, position_b, causal=causal))


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
    if is_exported() and not transformer.training and _is_all_plain(transformer):
        return _run_whole(transformer.resblocks, x_blf, position_b, mask_ll)
    if not (transformer.training and _is_plain(transformer, last)):
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


def _run_whole(
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
    query = _take(query.transpose(1, 2), position_b)[:, :, None]
    row = None
    if mask_ll is not None:
        row = mask_ll[position_b]
        row = row if isinstance(position_b, int) else row[:, None, None]  # (B, 1, 1, L)
    y_bf = _take(x_nf.unflatten(0, shape), position_b)
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


def packs(transformer: Any) -> bool:
    """Whether a causal transformer's blocks would run without padding."""
    on_cpu = next(transformer.parameters()).device.type == "cpu"
    return on_cpu and transformer.training and _is_all_plain(transformer)


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


def _is_all_plain(transformer: Any) -> bool:
    """Whether all blocks are open_clip's as they are, and their attentions two maps each."""
    return all(_is_plain(transformer, one) and _fuses(one.attn) for one in transformer.resblocks)


def _is_plain(transformer: Any, block: Any) -> bool:
    """Whether a block is open_clip's as it is: not replaced, hooked or sharded."""
    return (
        type(block).__name__ == "ResidualAttentionBlock"
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
    """A row of each sample: (B, L, ...) -> (B, ...)."""
    if isinstance(position_b, int):
        return x_blf[:, position_b]
    return x_blf[torch.arange(x_blf.shape[0], device=x_blf.device), position_b]
