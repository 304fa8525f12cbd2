"""A tower of open_clip or timm as a tower of transformers, where one computes exactly the same."""

from typing import Any

import torch
from torch import Tensor, nn

from ptft.export.transformers_blocks import (
    TowerPart,
    activation,
    encoder,
    linear,
    norm,
    one_norm_eps,
    refuse,
)
from ptft.preprocess import TextTokenizer

__all__ = ["clip_image", "clip_text", "siglip_image", "siglip_text"]

_CLIP_END = 49407  # the id of CLIP's end mark, the highest of its vocabulary


def clip_image(tower: Any) -> TowerPart:
    """open_clip's own vision transformer as a ``CLIPVisionModel``.

    Raises:
        Unlike: it is another tower, or computes something else.
    """
    kind = type(tower).__name__
    refuse(kind != "VisionTransformer", f"the image tower is a {kind}")
    refuse(
        tower.attn_pool is not None or tower.pool_type != "tok",
        "the image tower does not pool at its class token",
    )
    refuse(isinstance(tower.ln_pre, nn.Identity), "the image tower has no norm before its blocks")
    config, state, norms = encoder(tower.transformer.resblocks)
    config |= _sizes(tower.image_size, tower.patch_size)
    config["layer_norm_eps"] = one_norm_eps([*norms, tower.ln_pre, tower.ln_post])
    state |= {
        "embeddings.class_embedding": tower.class_embedding,
        "embeddings.patch_embedding.weight": tower.conv1.weight,
        "embeddings.position_embedding.weight": tower.positional_embedding,
        **norm("pre_layrnorm", tower.ln_pre),  # so spelt in transformers
        **norm("post_layernorm", tower.ln_post),
    }
    return TowerPart(config, state, None if tower.proj is None else tower.proj.T)


def clip_text(tower: Any, tokenizer: TextTokenizer) -> TowerPart:
    """open_clip's own causal text transformer as a ``CLIPTextModel`` or ``MetaClip2TextModel``.

    The end mark that it pools at is ``eos_token_id`` of the configuration.

    Raises:
        Unlike: it is another tower, or computes something else.
    """
    kind = type(tower).__name__
    refuse(kind != "TextTransformer", f"the text tower is a {kind}")
    refuse(tower.attn_mask is None, "the text tower attends in both directions")
    refuse(tower.cls_emb is not None, "the text tower appends a class token")
    refuse(
        tower.pool_type not in ("argmax", "eos"),
        f"the text tower pools at its {tower.pool_type} position, and not at the end mark",
    )
    refuse(
        tower.pool_type == "argmax" and tokenizer.kind != "clip",
        "the text tower pools at the highest id, which is the end mark of CLIP's vocabulary alone",
    )
    weight, bias = _text_projection(tower)
    refuse(bias is not None and bias.any(), "the text projection has a bias")
    config, state = _text(tower)
    end = _CLIP_END if tower.pool_type == "argmax" else int(tower.eos_id)
    config |= {"eos_token_id": end, "bos_token_id": None, "pad_token_id": tokenizer.pad_id}
    return TowerPart(config, state, weight)


def siglip_image(tower: Any) -> TowerPart:
    """timm's vision transformer with attention pooling as a ``SiglipVisionModel``.

    Raises:
        Unlike: it is another tower, or computes something else.
    """
    kind = type(tower).__name__
    refuse(kind != "TimmModel", f"the image tower is a {kind}")
    trunk = tower.trunk
    kind = type(trunk).__name__
    refuse(kind != "VisionTransformer", f"the image tower is timm's {kind}")
    refuse(
        type(trunk.attn_pool).__name__ != "AttentionPoolLatent",
        "the image tower does not pool by attention",
    )
    refuse(trunk.num_prefix_tokens > 0, "the image tower has class or register tokens")
    inside = (trunk.norm_pre, trunk.patch_embed.norm, trunk.fc_norm, trunk.head)
    refuse(
        not all(isinstance(one, nn.Identity) for one in inside) or len(tower.head) > 0,
        "the image tower has a projection, or a norm beyond SigLIP's",
    )
    config, state, norms = encoder(trunk.blocks)
    pool_state, pool_norm = _attention_pool(trunk.attn_pool, config)
    config |= _sizes(trunk.patch_embed.img_size, trunk.patch_embed.patch_size)
    config["layer_norm_eps"] = one_norm_eps([*norms, trunk.norm, pool_norm])
    patches = trunk.patch_embed.proj
    refuse(trunk.pos_embed.ndim != 3, "the image tower's positions are no plain embedding")
    state |= {
        **linear("embeddings.patch_embedding", patches.weight, patches.bias),
        "embeddings.position_embedding.weight": trunk.pos_embed[0],
        **norm("post_layernorm", trunk.norm),
        **pool_state,
    }
    return TowerPart(config, state, None)


def siglip_text(tower: Any, tokenizer: TextTokenizer) -> TowerPart:
    """open_clip's own text transformer without a mask as a ``SiglipTextModel``; its projection is
    part of it.

    Raises:
        Unlike: it is another tower, or computes something else.
    """
    kind = type(tower).__name__
    refuse(kind != "TextTransformer", f"the text tower is a {kind}")
    refuse(
        tower.attn_mask is not None or tower.use_pad_mask or tower.pool_type != "last",
        "the text tower does not attend in both directions and pool at its last position",
    )
    refuse(tower.cls_emb is not None, "the text tower appends a class token")
    config, state = _text(tower)
    weight, bias = _text_projection(tower)
    weight = torch.eye(tower.width) if weight is None else weight
    config |= {
        "projection_size": len(weight),
        "pad_token_id": tokenizer.pad_id,
        "bos_token_id": None,
        "eos_token_id": None,
    }
    return TowerPart(config, state | linear("head", weight, bias), None)


def _text(tower: Any) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """What the text models of CLIP and SigLIP have in common."""
    config, state, norms = encoder(tower.transformer.resblocks)
    config |= {
        "vocab_size": tower.vocab_size,
        "max_position_embeddings": tower.context_length,
        "layer_norm_eps": one_norm_eps([*norms, tower.ln_final]),
    }
    state |= {
        "embeddings.token_embedding.weight": tower.token_embedding.weight,
        "embeddings.position_embedding.weight": tower.positional_embedding,
        **norm("final_layer_norm", tower.ln_final),
    }
    return config, state


def _text_projection(tower: Any) -> tuple[Tensor | None, Tensor | None]:
    """Weight (D, F) and bias of a native text tower's projection, or None."""
    layer = tower.text_projection
    if layer is None:
        return None, None
    return (layer.weight, layer.bias) if isinstance(layer, nn.Linear) else (layer.T, None)


def _sizes(image: tuple[int, int], patch: tuple[int, int]) -> dict[str, Any]:
    refuse(
        image[0] != image[1] or patch[0] != patch[1],
        f"the image tower takes {image[1]}x{image[0]} pixels in patches of {patch[1]}x{patch[0]}, "
        "no squares",
    )
    return {"image_size": image[0], "patch_size": patch[0], "num_channels": 3}


def _attention_pool(pool: Any, config: dict[str, Any]) -> tuple[dict[str, Tensor], Any]:
    """timm's attention pool by the names of SigLIP's, and its norm."""
    refuse(
        pool.pos_embed is not None
        or pool.latent_len != 1
        or pool.mlp is None
        or not isinstance(pool.q, nn.Linear)
        or not isinstance(pool.q_norm, nn.Identity)
        or not isinstance(pool.mlp.norm, nn.Identity)
        or not isinstance(pool.norm, nn.LayerNorm)
        or pool.num_heads != config["num_attention_heads"]
        or pool.mlp.fc1.out_features != config["intermediate_size"],
        "its attention pool differs from SigLIP's",
    )
    own, theirs = activation(pool.mlp.act), config["hidden_act"]
    refuse(own != theirs, f"the image tower pools with {own} and computes with {theirs}")
    biases = [
        torch.zeros(len(layer.weight)) if layer.bias is None else layer.bias
        for layer in (pool.q, pool.kv)
    ]
    state = {
        "head.probe": pool.latent,
        "head.attention.in_proj_weight": torch.cat([pool.q.weight, pool.kv.weight]),
        "head.attention.in_proj_bias": torch.cat(biases),
        **linear("head.attention.out_proj", pool.proj.weight, pool.proj.bias),
        **norm("head.layernorm", pool.norm),
        **linear("head.mlp.fc1", pool.mlp.fc1.weight, pool.mlp.fc1.bias),
        **linear("head.mlp.fc2", pool.mlp.fc2.weight, pool.mlp.fc2.bias),
    }
    return state, pool.norm
