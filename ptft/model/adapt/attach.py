"""Adapters of every kind: put into a model, found again by name, merged into its weights.

``lora``, ``dora`` and ``ia3`` are changes of weights and end up in them: the merged model is the
plain architecture. ``bottleneck`` and ``prefix`` are parts of their own and stay; the model's
specification says so and builds them again. ``projection`` adds nothing.
"""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, TypeVar, get_args

from pydantic import Field, TypeAdapter
from torch import nn

from ptft.errors import AdaptError
from ptft.model.adapt.bottleneck import attach_bottlenecks
from ptft.model.adapt.low_rank import attach_layers, default_roles, merge_layers
from ptft.model.adapt.prefix import attach_prefix
from ptft.model.adapt.reference import check_merged, compare_outputs, reference_outputs
from ptft.model.adapt.sites import Sites, find_sites
from ptft.model.adapt.split import fuse_attention, split_attention
from ptft.model.encoder import DualEncoder
from ptft.model.towers import hash_tensor, projection, seeded
from ptft.recipe import (
    BottleneckAdapt,
    DoraAdapt,
    Ia3Adapt,
    LoraAdapt,
    PrefixAdapt,
    ProjectionAdapt,
)
from ptft.recipe.adapt import Adapter, Role

__all__ = ["adapter_names", "adapter_section", "attach", "base_digest", "merge", "rebuild"]

Key = TypeVar("Key", bound=str)

_ROLES = get_args(Role)
_PARTS = frozenset({"lora_A", "lora_B", "lora_magnitude_vector", "ia3_l", "bottleneck", "prefix"})
_SECTION: TypeAdapter[Adapter] = TypeAdapter(Annotated[Adapter, Field(discriminator="kind")])
_STAYS = {
    "bottleneck": "it has no place for bottleneck adapters",
    "prefix": "it has no place for prefix tokens",
}


def attach(model: DualEncoder, section: Adapter, *, seed: int) -> None:
    """Put an adapter into a plain model, in place, and hold the result against the base.

    Args:
        section: its towers all get one.
        seed: of what starts at random.

    Raises:
        AdaptError: a tower has no place for it, the model has an adapter already, or the adapted
            model is not the base at the start (a prefix need not be).
    """
    if model.spec.adapter is not None:
        kind = model.spec.adapter["section"]["kind"]
        raise AdaptError(
            f"adapt.kind: {section.kind!r}: the model it starts from carries a {kind} adapter; "
            "allowed: a plain model, or adapt.kind full"
        )
    base = base_digest(model)
    before = reference_outputs(model)
    with seeded(seed):
        _put_in(model, section)
    if not isinstance(section, PrefixAdapt):
        compare_outputs(before, reference_outputs(model), "the adapted model, before training")
    _note(model, section, base)


def rebuild(model: DualEncoder) -> None:
    """Put the adapter that a model's specification names into it, in place; its weights are still
    to be loaded."""
    assert model.spec.adapter is not None, "a plain model is built by its own parts"
    with seeded(0):
        _put_in(model, adapter_section(model.spec.adapter))


def adapter_section(adapter: Mapping[str, Any]) -> Adapter:
    """The section of ``ModelSpec.adapter``.

    Raises:
        AdaptError: another ptft wrote it.
    """
    try:
        return _SECTION.validate_python(adapter["section"])
    except (KeyError, ValueError) as error:
        raise AdaptError(f"adapter: {dict(adapter)}: {error}") from None


def adapter_names(model: nn.Module) -> list[str]:
    """Names of the parameters that belong to an adapter and not to the base model."""
    return [name for name, _ in model.named_parameters() if not _PARTS.isdisjoint(name.split("."))]


def merge(model: DualEncoder) -> DualEncoder:
    """Merge the adapter into the weights, in place, and hold the result against what it was.

    The towers have the plain architecture and names afterwards. A bottleneck or a prefix cannot be
    merged and stays.

    Returns:
        The model.

    Raises:
        AdaptError: the merged model gives other embeddings, or a weight is not finite.
    """
    if model.spec.adapter is None or model.spec.adapter["section"]["kind"] in _STAYS:
        return model
    section = adapter_section(model.spec.adapter)
    if not isinstance(section, ProjectionAdapt):
        trained = reference_outputs(model)
        for name in section.towers:
            tower = model.get_submodule(name)
            merge_layers(tower)
            fuse_attention(tower)
        check_merged(trained, model)
    model.spec = model.spec.with_(adapter=None)
    return model


def base_digest(model: DualEncoder) -> str:
    """sha256 (hex) over names, types, shapes and bytes of both towers' weights."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        if name.startswith(("image.", "text.")):
            hash_tensor(digest, name, tensor)
    return digest.hexdigest()


def _put_in(model: DualEncoder, section: Adapter) -> None:
    towers: dict[str, Any] = {name: model.get_submodule(name) for name in section.towers}
    sites = {name: find_sites(tower) for name, tower in towers.items()}
    match section:
        case LoraAdapt() | DoraAdapt() | Ia3Adapt():
            chosen = _choose_layers(section, sites)
            for name, tower in towers.items():
                if not {"q", "k", "v", "out"}.isdisjoint(chosen[name]):
                    for path in sites[name].fused:
                        split_attention(tower, path)
                attach_layers(tower, section, chosen[name])
        case BottleneckAdapt():
            after = _choose("after", section.after, {n: s.sublayers for n, s in sites.items()})
            for name, tower in towers.items():
                paths = [path for found in after[name].values() for path in found]
                attach_bottlenecks(tower, paths, section.width)
        case PrefixAdapt():
            for name, tower in towers.items():
                _attach_prefix(name, tower, section, sites[name])
        case ProjectionAdapt():
            for name, tower in towers.items():
                if not projection(tower):
                    raise AdaptError(
                        f"adapt.kind: 'projection': the {name} tower has none; see adapt.towers"
                    )


def _choose_layers(
    section: LoraAdapt | DoraAdapt | Ia3Adapt, sites: Mapping[str, Sites]
) -> dict[str, dict[Role, Sequence[str]]]:
    """tower -> role -> layers that are adapted."""
    layers: dict[str, Mapping[Role, Sequence[str]]] = {n: s.layers for n, s in sites.items()}
    if section.targets is not None:
        return _choose("targets", section.targets, layers)
    chosen: dict[str, dict[Role, Sequence[str]]] = {}
    for name, offered in layers.items():
        # a tower that offers none of the defaults is refused as if they had been named
        roles = default_roles(section, offered)
        chosen |= _choose("targets", roles or list(_ROLES), {name: offered})
    return chosen


def _choose(
    key: str, wanted: Sequence[Key], offered: Mapping[str, Mapping[Key, Sequence[str]]]
) -> dict[str, dict[Key, Sequence[str]]]:
    """tower -> what is wanted and what it offers of it.

    Raises:
        AdaptError: a tower offers none of it, or one is offered by no tower.
    """
    chosen = {
        name: {each: found[each] for each in wanted if found.get(each)}
        for name, found in offered.items()
    }
    empty = [name for name in chosen if not chosen[name]]
    nowhere = [each for each in wanted if not any(each in found for found in chosen.values())]
    if empty or nowhere:
        given, name = (wanted, empty[0]) if empty else (nowhere, next(iter(offered)))
        allowed = ", ".join(sorted(each for each in offered[name] if offered[name][each]))
        raise AdaptError(
            f"adapt.{key}: {', '.join(given)}: nothing of that kind can be adapted in the {name} "
            f"tower; allowed for it: {allowed or 'nothing'} (adapt.towers leaves a tower out)"
        )
    return chosen


def _attach_prefix(name: str, tower: nn.Module, section: PrefixAdapt, sites: Sites) -> None:
    if not sites.blocks:
        raise AdaptError(
            f"adapt.kind: 'prefix': the {name} tower takes none: {sites.no_blocks}; "
            "adapt.towers leaves a tower out"
        )
    attach_prefix(
        tower, sites.blocks, length=section.length, depth=section.depth, width=sites.width
    )


def _note(model: DualEncoder, section: Adapter, base: str) -> None:
    adapter = {"section": section.model_dump(mode="json"), "base": base}
    reason = model.spec.open_clip_reason or _STAYS.get(section.kind)
    model.spec = model.spec.with_(adapter=adapter, open_clip_reason=reason)
