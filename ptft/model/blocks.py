"""The blocks of a tower: a stack of alike layers, between what comes before and after it.

Layer-wise learning rates, compilation and sharding go by them.
"""

import re
from typing import Any

from torch import nn

from ptft.compat import import_timm
from ptft.errors import ModelError
from ptft.model.encoder import DualEncoder

__all__ = ["layer_depths", "tower_blocks"]

_TOWERS = ("image", "text")
_BEFORE = ("embed", "shared")  # in the name of a transformers encoder's part: before its layers


def tower_blocks(tower: nn.Module) -> list[nn.Module]:
    """The blocks of a tower from its input to its output; empty where it has no such stack.

    A transformer's layers, or a ResNet's bottlenecks. Of a timm network of stages (ConvNeXt, Swin)
    each block of each stage.
    """
    return [module for _, module in _named_blocks(tower)]


def layer_depths(model: DualEncoder) -> dict[str, int]:
    """Blocks between each parameter and its tower's output: the exponent of ``layer_decay``.

    0 is the projection, the head, the logit scale and bias; 1 the last block with the norm after
    it; the number of blocks + 1 what comes before the first. timm's networks are grouped by timm's
    own rule (``group_matcher``), and the others in the same way (Bao et al. 2021, BEiT).

    Raises:
        ModelError: a tower has no order of layers that ptft knows.
    """
    depths = {name: 0 for name, _ in model.named_parameters()}
    for side in _TOWERS:
        tower = model.get_submodule(side)
        names = [name for name, _ in tower.named_parameters()]
        ranks = _timm_ranks(tower) if hasattr(tower, "trunk") else _ranks(tower, side)
        last = max(ranks.values())
        depths.update({f"{side}.{name}": last - ranks.get(name, last) for name in names})
    return depths


def _ranks(tower: Any, side: str) -> dict[str, int]:
    """Names of a native or transformers tower to 0 (before the blocks), 1 ... (in them), last."""
    blocks = _named_blocks(tower)
    if not blocks:
        raise ModelError(
            f"optim.layer_decay: the {side} tower ({type(tower).__name__}) has no stack of blocks; "
            "allowed: null"
        )
    place = {f"{name}.": number for number, (name, _) in enumerate(blocks, start=1)}
    ranks: dict[str, int] = {}
    for name, _ in tower.named_parameters():
        inside = next((place[prefix] for prefix in place if name.startswith(prefix)), None)
        if inside is not None:
            ranks[name] = inside
        elif _is_before(tower, name):
            ranks[name] = 0
        else:  # the norm belongs to the last block, as timm has it
            ranks[name] = len(blocks) if _is_last_norm(tower, name) else len(blocks) + 1
    return ranks


def _is_before(tower: Any, name: str) -> bool:
    top, *inner = name.split(".")
    match type(tower).__name__:
        case "VisionTransformer":
            return top in ("class_embedding", "positional_embedding", "conv1", "ln_pre")
        case "ModifiedResNet":
            return re.fullmatch(r"(conv|bn)[123]", top) is not None
        case "TextTransformer":
            return top in ("token_embedding", "positional_embedding", "cls_emb")
        case _:  # HFTextEncoder: transformer.embeddings, transformer.shared, ...
            return top == "transformer" and any(part in inner[0] for part in _BEFORE)


def _is_last_norm(tower: Any, name: str) -> bool:
    top, *inner = name.split(".")
    if type(tower).__name__ == "HFTextEncoder":
        return top == "transformer" and "norm" in inner[0]
    return top in ("ln_post", "ln_final")


def _timm_ranks(tower: Any) -> dict[str, int]:
    """The same by timm's rule; what it does not match, a neck or a head, comes last."""
    import_timm()
    from timm.models._manipulate import group_with_matcher

    trunk = tower.trunk
    if not hasattr(trunk, "group_matcher"):
        raise ModelError(
            f"optim.layer_decay: timm gives no order of the layers of {type(trunk).__name__}; "
            "allowed: null"
        )
    named = [(name, None) for name, _ in trunk.named_parameters()]
    named.append(("its own classifier", None))  # was taken off, and still counts as a layer
    ranks = group_with_matcher(iter(named), trunk.group_matcher(coarse=False), reverse=True)
    return {f"trunk.{name}": rank for name, rank in ranks.items()}


def _named_blocks(tower: Any) -> list[tuple[str, nn.Module]]:
    match type(tower).__name__:
        case "VisionTransformer" | "TextTransformer":
            return _children(tower, "transformer.resblocks")
        case "ModifiedResNet":
            return [b for stage in range(1, 5) for b in _children(tower, f"layer{stage}")]
        case "TimmModel":
            return _timm_blocks(tower.trunk)
        case _:
            return _longest_stack(tower, "transformer")


def _children(tower: nn.Module, path: str) -> list[tuple[str, nn.Module]]:
    return [(f"{path}.{name}", block) for name, block in tower.get_submodule(path).named_children()]


def _timm_blocks(trunk: nn.Module) -> list[tuple[str, nn.Module]]:
    if hasattr(trunk, "blocks") and isinstance(trunk.blocks, nn.Sequential | nn.ModuleList):
        children = list(trunk.blocks.named_children())
        if all(isinstance(block, nn.Sequential) for _, block in children):  # stages of blocks
            return [
                (f"trunk.blocks.{stage}.{name}", block)
                for stage, blocks in children
                for name, block in blocks.named_children()
            ]
        return [(f"trunk.blocks.{name}", block) for name, block in children]
    found = []
    for name, module in trunk.named_modules():
        if name.endswith(".blocks") and isinstance(module, nn.Sequential | nn.ModuleList):
            found += [(f"trunk.{name}.{key}", block) for key, block in module.named_children()]
    return found


def _longest_stack(tower: nn.Module, path: str) -> list[tuple[str, nn.Module]]:
    """The longest list of layers in a transformers encoder, whatever its class calls it."""
    stacks = [
        (f"{path}.{name}", module)
        for name, module in tower.get_submodule(path).named_modules()
        if isinstance(module, nn.ModuleList)
    ]
    if not stacks:
        return []
    name, longest = max(stacks, key=lambda one: len(one[1]))
    return [(f"{name}.{key}", block) for key, block in longest.named_children()]
