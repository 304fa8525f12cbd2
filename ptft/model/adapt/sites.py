"""Where adapters go in a tower of each family: layers by role, and transformer blocks in order.

- open_clip's ViT and text tower: q, k, v in a parameter of ``nn.MultiheadAttention``; c_fc, c_proj
- timm's ViT and its kin: q, k, v in one linear layer; fc1 (or its gate and value), fc2
- transformers: all separate
- ResNets, ConvNeXt, MobileNets: convolutions; fc1 and fc2 where there are
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from ptft.errors import AdaptError
from ptft.recipe.adapt import Role

__all__ = ["Sites", "find_sites"]

# timm's attentions that call one layer ``qkv`` and cut its output in three
_TIMM_FUSED = ("Attention", "AttentionRope", "WindowAttention", "RelPosAttention")
_TIMM_MLP: Mapping[str, dict[str, Role]] = {
    "Mlp": {"fc1": "fc1", "fc2": "fc2"},
    "GluMlp": {"fc1": "fc1", "fc2": "fc2"},
    "SwiGLU": {"fc1_g": "fc1", "fc1_x": "fc1", "fc2": "fc2"},
    "GeGluMlp": {"w0": "fc1", "w1": "fc1", "w2": "fc2"},  # ViTamin's
}
_TIMM_NOT_BLOCKS = ("AttentionPoolLatent", "RelPosMlp")  # hold an mlp and are no block
# transformers' classes by the end of their name, so that BERT's are RoBERTa's too; first match wins
_TRANSFORMERS: tuple[tuple[str, dict[str, Role]], ...] = (
    ("SelfAttention", {"query": "q", "key": "k", "value": "v"}),
    ("SelfOutput", {"dense": "out"}),
    ("Intermediate", {"dense": "fc1"}),
    ("Output", {"dense": "fc2"}),
    ("T5Attention", {"q": "q", "k": "k", "v": "v", "o": "out"}),
    ("DenseGatedActDense", {"wi_0": "fc1", "wi_1": "fc1", "wo": "fc2"}),
    ("DenseActDense", {"wi": "fc1", "wo": "fc2"}),
    ("M2M100Attention", {"q_proj": "q", "k_proj": "k", "v_proj": "v", "out_proj": "out"}),
    ("EncoderLayer", {"fc1": "fc1", "fc2": "fc2"}),
)
_PREFIXABLE = ("BertLayer", "RobertaLayer", "XLMRobertaLayer", "M2M100EncoderLayer")


@dataclass
class Sites:
    """Names of modules within a tower.

    Attributes:
        layers: role -> what can be adapted; those of fused attention exist once it is split.
        fused: attentions to split before q, k, v and out can be adapted.
        sublayers: ``attention`` and ``mlp`` -> modules whose output is the sublayer's.
        blocks: transformer blocks that take and give a sequence of tokens, in order.
        width: of a token between blocks.
        no_blocks: why there are none.
    """

    layers: dict[Role, list[str]] = field(default_factory=dict)
    fused: list[str] = field(default_factory=list)
    sublayers: dict[str, list[str]] = field(default_factory=lambda: {"attention": [], "mlp": []})
    blocks: list[str] = field(default_factory=list)
    width: int = 0
    no_blocks: str = "it has no transformer blocks"

    def add(self, role: Role, name: str) -> None:
        """Note a layer."""
        self.layers.setdefault(role, []).append(name)


def find_sites(tower: nn.Module) -> Sites:
    """What a tower offers to adapters.

    Raises:
        AdaptError: a tower of a kind that ptft does not know.
    """
    match type(tower).__name__:
        case "VisionTransformer" | "TextTransformer":
            return _native(tower)
        case "ModifiedResNet":
            return _convolutions(tower, Sites())
        case "TimmModel":
            return _timm(tower)
        case "HFTextEncoder":
            return _transformers(tower)
        case other:
            raise AdaptError(f"adapt: {other}: not a tower that ptft knows")


def _native(tower: Any) -> Sites:
    sites = Sites(width=tower.transformer.width)
    for index, block in enumerate(tower.transformer.resblocks):
        path = f"transformer.resblocks.{index}"
        if not isinstance(block.attn, nn.MultiheadAttention) or not block.attn.batch_first:
            raise AdaptError(
                f"adapt: {path}.attn: open_clip's {type(block.attn).__name__}; allowed: its plain "
                "block, on nn.MultiheadAttention"
            )
        sites.fused.append(f"{path}.attn")
        for role in ("q", "k", "v", "out"):
            sites.add(role, f"{path}.attn.{role}_proj")
        sites.add("fc1", f"{path}.mlp.c_fc")
        sites.add("fc2", f"{path}.mlp.c_proj")
        sites.sublayers["attention"].append(f"{path}.attn")
        sites.sublayers["mlp"].append(f"{path}.mlp.c_proj")
        sites.blocks.append(path)
    return _convolutions(tower, sites)


def _timm(tower: Any) -> Sites:
    sites = Sites()
    for path, module in tower.trunk.named_modules(prefix="trunk"):
        attention, mlp = getattr(module, "attn", None), getattr(module, "mlp", None)
        if isinstance(attention, nn.Module):
            _timm_attention(attention, f"{path}.attn", sites)
        roles = _TIMM_MLP.get(type(mlp).__name__, {})
        if type(module).__name__ in _TIMM_NOT_BLOCKS or not isinstance(mlp, nn.Module):
            continue
        for child, role in roles.items():
            if isinstance(getattr(mlp, child, None), nn.Linear):  # some are 1x1 convolutions
                sites.add(role, f"{path}.mlp.{child}")
                if role == "fc2":
                    sites.sublayers["mlp"].append(f"{path}.mlp.{child}")
    trunk = tower.trunk
    if type(trunk).__name__ == "VisionTransformer":
        sites.width = trunk.embed_dim
        sites.blocks = [f"trunk.blocks.{index}" for index in range(len(trunk.blocks))]
    elif sites.sublayers["attention"]:
        sites.no_blocks = (
            f"timm's {type(trunk).__name__} ties attention to the positions of its own tokens"
        )
    return _convolutions(tower, sites)


def _timm_attention(attention: Any, path: str, sites: Sites) -> None:
    """Roles of one of timm's attentions; of one that it would be wrong to split none."""
    kind = type(attention).__name__
    apart = getattr(attention, "qkv", None) is None
    if kind == "EvaAttention" or (kind == "AttentionRope" and apart):
        names = {"q": "q_proj", "k": "k_proj", "v": "v_proj"}
    elif kind in _TIMM_FUSED and getattr(attention, "q_bias", None) is None:
        names = {"q": "qkv.q", "k": "qkv.k", "v": "qkv.v"}
    else:
        return
    if not isinstance(attention.proj, nn.Linear) or not (
        apart or isinstance(attention.qkv, nn.Linear)
    ):
        return
    if not apart:
        sites.fused.append(path)
    for role in ("q", "k", "v"):
        sites.add(role, f"{path}.{names[role]}")
    sites.add("out", f"{path}.proj")
    sites.sublayers["attention"].append(f"{path}.proj")


def _transformers(tower: Any) -> Sites:
    sites = Sites()
    for path, module in tower.transformer.named_modules(prefix="transformer"):
        kind = type(module).__name__
        roles = next((roles for end, roles in _TRANSFORMERS if kind.endswith(end)), {})
        for child, role in roles.items():
            if not isinstance(getattr(module, child, None), nn.Linear):
                continue
            name = f"{path}.{child}"
            sites.add(role, name)
            if role in ("out", "fc2"):
                sites.sublayers["attention" if role == "out" else "mlp"].append(name)
        if kind in _PREFIXABLE:
            sites.blocks.append(path)
    sites.width = tower.config.hidden_size
    kind = tower.config.model_type
    sites.no_blocks = f"for the attention of {kind} (its position bias, say) none is known"
    return sites


def _convolutions(tower: nn.Module, sites: Sites) -> Sites:
    """Add the convolutions whose map is exactly their weight, and that see all channels."""
    for path, module in _outside_gates(tower):
        # A subclass may change the weight on the way (weight standardisation), which a sum with an
        # adapter would not survive; timm's Conv2dSame only pads.
        plain = type(module) is nn.Conv2d or type(module).__name__ == "Conv2dSame"
        if (
            plain
            and isinstance(module, nn.Conv2d)
            and module.groups == 1
            and module.dilation == (1, 1)
            and module.padding_mode == "zeros"
        ):
            sites.add("conv", path)
    return sites


def _outside_gates(tower: nn.Module, path: str = "") -> Iterator[tuple[str, nn.Module]]:
    """Modules but for those of squeeze-and-excitation, whose gates saturate and then train
    nothing."""
    for name, child in tower.named_children():
        if type(child).__name__ in ("SqueezeExcite", "SEModule", "EffectiveSEModule"):
            continue
        inner = f"{path}.{name}" if path else name
        yield inner, child
        yield from _outside_gates(child, inner)
