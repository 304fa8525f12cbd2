"""Blocks of open_clip and timm by the names that CLIP and SigLIP of transformers share."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

__all__ = [
    "TowerPart",
    "Unlike",
    "activation",
    "encoder",
    "linear",
    "norm",
    "one_norm_eps",
    "refuse",
]


class Unlike(Exception):  # noqa: N818 (no error of a user's: it is caught where a class is chosen)
    """A part of a model that no class of transformers computes; its text is the reason."""


@dataclass(frozen=True)
class TowerPart:
    """A tower in transformers' terms.

    Attributes:
        config: its section of ``config.json``.
        state: its weights, by names inside the tower.
        projection: (D, F) from its features to the joint space; None where it has none.
    """

    config: dict[str, Any]
    state: dict[str, Tensor]
    projection: Tensor | None


@dataclass(frozen=True)
class _Block:
    """One pre-norm block, whoever's it is: x + attention(norm1(x)), then x + mlp(norm2(x))."""

    qkv: tuple[Tensor, Tensor | None]
    out: nn.Linear
    heads: int
    norms: tuple[Any, Any]
    scales: tuple[Tensor | None, Tensor | None]  # layer scale after either, or none
    mlp: tuple[nn.Linear, Any, nn.Linear]  # with the activation between


def refuse(condition: object, reason: str) -> None:
    """Raise :class:`Unlike` with a reason where ``condition`` holds."""
    if condition:
        raise Unlike(reason)


def activation(module: Any) -> str:
    """transformers' name of an activation.

    Raises:
        Unlike: it has none.
    """
    match type(module).__name__:
        case "QuickGELU":
            return "quick_gelu"
        case "GELUTanh":
            return "gelu_pytorch_tanh"
        case "GELU" if getattr(module, "approximate", "none") == "tanh":
            return "gelu_pytorch_tanh"
        case "GELU":
            return "gelu"
        case other:
            raise Unlike(f"its blocks use {other}")


def encoder(blocks: Any) -> tuple[dict[str, Any], dict[str, Tensor], list[Any]]:
    """The blocks of a tower: configuration, weights under ``encoder.layers.``, and their norms.

    Layer scale is multiplied into the layer before it, which is the same function.

    Raises:
        Unlike: a block computes something else.
    """
    plain = [_read(block) for block in blocks]
    kinds = {(block.heads, activation(block.mlp[1]), block.mlp[0].out_features) for block in plain}
    refuse(len(kinds) != 1, "its blocks are not all of one shape")
    heads, act, hidden = kinds.pop()
    state: dict[str, Tensor] = {}
    for index, block in enumerate(plain):
        state |= _under(f"encoder.layers.{index}.", _named(block))
    config = {
        "hidden_size": plain[0].out.out_features,
        "intermediate_size": hidden,
        "num_attention_heads": heads,
        "num_hidden_layers": len(plain),
        "hidden_act": act,
    }
    return config, state, [one for block in plain for one in block.norms]


def one_norm_eps(norms: list[Any]) -> float:
    """The epsilon that all norms of a tower share.

    Raises:
        Unlike: they are no layer norms, or have several.
    """
    for one in norms:
        refuse(not isinstance(one, nn.LayerNorm), f"it normalises by {type(one).__name__}")
        refuse(one.weight is None or one.bias is None, "its norms have no weight or no bias")
    values = {float(one.eps) for one in norms}
    refuse(len(values) != 1, f"its norms have several epsilons ({sorted(values)})")
    return values.pop()


def norm(name: str, module: Any) -> dict[str, Tensor]:
    """Weight and bias of a norm under a name."""
    return {f"{name}.weight": module.weight, f"{name}.bias": module.bias}


def linear(name: str, weight: Tensor, bias: Tensor | None) -> dict[str, Tensor]:
    """Weight and bias of a layer under a name; no bias is one of zero."""
    zero = torch.zeros(len(weight), dtype=weight.dtype)
    return {f"{name}.weight": weight, f"{name}.bias": zero if bias is None else bias}


def _under(prefix: str, state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {prefix + name: tensor for name, tensor in state.items()}


def _read(block: Any) -> _Block:
    match type(block).__name__:
        case "ResidualAttentionBlock":
            attention = block.attn
            return _Block(
                (attention.in_proj_weight, attention.in_proj_bias),
                attention.out_proj,
                attention.num_heads,
                (block.ln_1, block.ln_2),
                (_scale(block.ls_1), _scale(block.ls_2)),
                (block.mlp.c_fc, block.mlp.gelu, block.mlp.c_proj),
            )
        case "Block" if type(block.attn).__name__ == "Attention":
            attention, mlp = block.attn, block.mlp
            between = (attention.q_norm, attention.k_norm, attention.norm, mlp.norm)
            refuse(
                not all(isinstance(one, nn.Identity) for one in between),
                "its blocks normalise inside attention or the MLP",
            )
            refuse(type(mlp).__name__ != "Mlp", f"its blocks have a {type(mlp).__name__}")
            return _Block(
                (attention.qkv.weight, attention.qkv.bias),
                attention.proj,
                attention.num_heads,
                (block.norm1, block.norm2),
                (_scale(block.ls1), _scale(block.ls2)),
                (mlp.fc1, mlp.act, mlp.fc2),
            )
        case other:
            raise Unlike(f"its blocks are of another kind ({other})")


def _scale(module: Any) -> Tensor | None:
    return None if isinstance(module, nn.Identity) else module.gamma


def _named(block: _Block) -> dict[str, Tensor]:
    weight, bias = block.qkv
    biases = (None,) * 3 if bias is None else bias.chunk(3)
    state: dict[str, Tensor] = {}
    for name, rows, start in zip("qkv", weight.chunk(3), biases, strict=True):
        state |= linear(f"self_attn.{name}_proj", rows, start)
    fc1, _, fc2 = block.mlp
    return {
        **state,
        **_scaled("self_attn.out_proj", block.out, block.scales[0]),
        **norm("layer_norm1", block.norms[0]),
        **linear("mlp.fc1", fc1.weight, fc1.bias),
        **_scaled("mlp.fc2", fc2, block.scales[1]),
        **norm("layer_norm2", block.norms[1]),
    }


def _scaled(name: str, layer: nn.Linear, scale: Tensor | None) -> dict[str, Tensor]:
    if scale is None:
        return linear(name, layer.weight, layer.bias)
    bias = None if layer.bias is None else layer.bias * scale
    return linear(name, layer.weight * scale[:, None], bias)
