"""LoRA, DoRA and IA3 as peft computes them, on layers chosen by role, merged away afterwards.

What peft gets is a list of whole names of linear layers and plain convolutions, and what it did is
held against that list: given patterns, it would adapt layers that no forward calls.
"""

import warnings
from collections.abc import Mapping, Sequence

from torch import nn

from ptft.compat import prepare_torchvision
from ptft.errors import AdaptError
from ptft.recipe import DoraAdapt, Ia3Adapt, LoraAdapt
from ptft.recipe.adapt import Role

__all__ = ["attach_layers", "default_roles", "merge_layers"]

LowRank = LoraAdapt | DoraAdapt | Ia3Adapt


def default_roles(section: LowRank, offered: Mapping[Role, Sequence[str]]) -> list[Role]:
    """The roles that are adapted where the recipe names none."""
    wanted: tuple[Role, ...]
    if isinstance(section, Ia3Adapt):
        wanted = ("k", "v", "fc2") if "k" in offered else ("fc2", "conv")
    else:
        wanted = ("q", "k", "v") if "q" in offered else ("fc1", "fc2", "conv")
    return [role for role in wanted if role in offered]


def attach_layers(tower: nn.Module, section: LowRank, layers: Mapping[Role, Sequence[str]]) -> None:
    """Put an adapter on every layer named, in place; it starts as no change at all.

    Raises:
        AdaptError: peft refuses a layer, or took others.
    """
    prepare_torchvision()  # transformers imports it, and peft transformers
    from peft import IA3Config, LoraConfig, PeftConfig, inject_adapter_in_model

    names = [name for role in layers for name in layers[role]]
    config: PeftConfig
    if isinstance(section, Ia3Adapt):
        # the paper's factor of the MLP is on its hidden layer: the input of fc2
        inputs = list(layers.get("fc2", ()))
        config = IA3Config(target_modules=names, feedforward_modules=inputs)
    else:
        _refuse_same_padding(tower, section, names)
        config = LoraConfig(
            r=section.rank,
            lora_alpha=section.alpha,
            lora_dropout=section.dropout,
            use_rslora=section.rslora,
            use_dora=isinstance(section, DoraAdapt),
            target_modules=names,
        )
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Already found a `peft_config` attribute")
            inject_adapter_in_model(config, tower)
    except (TypeError, ValueError) as error:
        raise AdaptError(f"adapt.kind: {section.kind!r}: {error}") from error
    del tower.peft_config  # peft's note to itself
    found = set(_adapted(tower))
    if found != set(names):
        wrong = sorted(found.symmetric_difference(names))
        raise AdaptError(f"adapt.kind: {section.kind!r}: peft adapted other layers: {wrong[:6]}")


def merge_layers(tower: nn.Module) -> None:
    """Add the adapters to the weights that they sit on and take them away, in place.

    Raises:
        AdaptError: a merged weight is not finite.
    """
    for name, layer in _adapted(tower).items():
        try:
            layer.merge(safe_merge=True)
        except ValueError as error:
            raise AdaptError(f"{name}: cannot be merged: {error}") from error
        tower.set_submodule(name, layer.get_base_layer())


def _adapted(tower: nn.Module) -> dict:
    from peft.tuners.tuners_utils import BaseTunerLayer

    return {
        name: module for name, module in tower.named_modules() if isinstance(module, BaseTunerLayer)
    }


def _refuse_same_padding(
    tower: nn.Module, section: LoraAdapt | DoraAdapt, names: Sequence[str]
) -> None:
    """peft's DoRA with dropout convolves once more itself, without timm's padding."""
    if not isinstance(section, DoraAdapt) or section.dropout == 0.0:
        return
    for name in names:
        if type(tower.get_submodule(name)).__name__ == "Conv2dSame":
            raise AdaptError(
                f"adapt.dropout: {section.dropout} with kind dora: {name} pads as TensorFlow does, "
                "which peft's DoRA leaves out under dropout; allowed: 0, or kind lora"
            )
