"""A tower in two parts: its trunk, and the projection that learns when the tower is locked.

Shape letters: B batch, F width of a trunk's features, D width of the joint space, L text length.

``project(tower, trunk(x))`` is ``tower(x)``: the features of a locked trunk can be kept, and its
projection still learn.
"""

import hashlib
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ptft.errors import ModelError
from ptft.model.pooled import packs, run_pooled
from ptft.model.towers import projection

__all__ = [
    "hash_tensor",
    "image_trunk",
    "packs_texts",
    "project",
    "text_trunk",
    "trunk_digest",
    "trunk_learns",
]


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


def trunk_learns(tower: Any) -> bool:
    """Whether a weight of the tower before its projection requires a gradient."""
    apart = _projected(tower)
    return any(p.requires_grad for p in tower.parameters() if id(p) not in apart)


def trunk_digest(tower: Any) -> str:
    """sha256 of the trunk's weights and buffers with their names; the projection is left out."""
    apart = _projected(tower)
    digest = hashlib.sha256(type(tower).__name__.encode())
    for name, tensor in tower.state_dict(keep_vars=True).items():
        if id(tensor) not in apart:
            hash_tensor(digest, name, tensor)
    return digest.hexdigest()


def hash_tensor(digest: "hashlib._Hash", name: str, tensor: Tensor) -> None:
    """Add a tensor's name, type, shape and bytes to a digest."""
    plain = tensor.detach().cpu().contiguous()
    digest.update(f"{name} {plain.dtype} {tuple(plain.shape)}\n".encode())
    digest.update(plain.view(-1).view(torch.uint8).numpy().data)


def _projected(tower: Any) -> set[int]:
    """Identities of the projection's weights and buffers."""
    found: set[int] = set()
    for part in projection(tower):
        if isinstance(part, nn.Module):
            found.update(map(id, (*part.parameters(), *part.buffers())))
        else:
            found.add(id(part))
    return found


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
