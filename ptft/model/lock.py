"""What of a model learns."""

from torch import nn

from ptft.errors import AdaptError, ModelError
from ptft.model.adapt import adapter_names, attach
from ptft.model.detecting import unread_by_detector
from ptft.model.encoder import DualEncoder
from ptft.model.towers import projection
from ptft.recipe import (
    AdapterSection,
    AdaptSection,
    ClassifyObjective,
    DetectObjective,
    ObjectiveSection,
    ProbeAdapt,
    ProjectionAdapt,
    SelfSupervisedObjective,
    SiglipObjective,
    TipAdapterAdapt,
    read_towers,
)
from ptft.recipe.adapt import Adapter

__all__ = ["active_batch_norm", "apply_adapt", "scale_learns"]

_TOWERS = ("image", "text")


def apply_adapt(
    model: DualEncoder, adapt: AdaptSection, objective: ObjectiveSection, *, seed: int = 0
) -> str:
    """Let learn what the recipe says, and lock the rest, in place.

    ``full``: everything that the objective reads, but for the towers in ``lock``, whose projections
    still learn. ``probe``: the head (``classify``), or the projections with the logit scale and
    bias. A locked tower stays in eval mode, so that its batch statistics do not move. What the
    objective does not read (the text tower of a classifier of pictures) is locked too: it gets no
    gradient.
    ``tip_adapter``: nothing, or the keys of the head's cache.
    Every other kind puts an adapter into the towers it names (:mod:`ptft.model.adapt`): the base
    stays, its batch statistics included, and a tower without adapter is locked.

    Args:
        seed: of an adapter's random start.

    Returns:
        What learns, for people: ``text tower, image projection, logit scale: 1,234 of 5,678
        parameters``.

    Raises:
        ModelError: a classifier without a head.
        AdaptError: an adapter that the model has no place for.
    """
    if isinstance(adapt, AdapterSection):
        return _apply_adapter(model, adapt, objective, seed)
    if isinstance(adapt, TipAdapterAdapt):
        return _apply_cache(model, adapt)
    classify = isinstance(objective, ClassifyObjective)
    probe = isinstance(adapt, ProbeAdapt)
    locked = set(_TOWERS) if isinstance(adapt, ProbeAdapt) else set(adapt.lock)
    model.norms_frozen = not isinstance(adapt, ProbeAdapt) and adapt.freeze_norm
    unused = set(_TOWERS) - set(read_towers(objective))
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    learns: list[str] = []
    for name in _TOWERS:
        tower = model.get_submodule(name)
        if name in unused or (probe and classify):
            continue
        if name not in locked:
            tower.requires_grad_(True)
            learns.append(f"{name} tower")
            continue
        parts = projection(tower)
        for part in parts:
            part.requires_grad_(True)
        if parts:
            learns.append(f"{name} projection")
    if classify:
        if model.head is None:
            raise ModelError("objective.kind: 'classify' needs a head; see init_head")
        model.head.requires_grad_(True)
        learns.append("head")
    if isinstance(objective, DetectObjective):
        learns += _let_detect(model)
    if scale_learns(adapt, objective):
        model.logit_scale.requires_grad_(True)
        learns.append("logit scale")
    if isinstance(objective, SiglipObjective) and model.logit_bias is not None:
        model.logit_bias.requires_grad_(True)
        learns.append("logit bias")
    model.lock(locked | unused)
    return f"{', '.join(learns)}: {_share(model)}"


def _let_detect(model: DualEncoder) -> list[str]:
    """Let the head for boxes learn; what it does not read of the image tower is locked."""
    assert model.detector is not None
    model.detector.requires_grad_(True)
    for parameter in unread_by_detector(model):
        parameter.requires_grad_(False)
    return ["detector"]


def active_batch_norm(model: DualEncoder) -> str | None:
    """The first batch norm that takes its statistics from the batch in training, by name."""
    training = model.training
    model.train()
    found = (
        name
        for name, part in model.named_modules()
        if isinstance(part, nn.modules.batchnorm._BatchNorm) and part.training
    )
    name = next(found, None)
    model.train(training)
    return name


def scale_learns(adapt: AdaptSection, objective: ObjectiveSection) -> bool:
    """Whether the recipe lets the logit scale learn."""
    reads_scale = not isinstance(objective, DetectObjective | SelfSupervisedObjective)
    if isinstance(adapt, AdapterSection):
        return adapt.logit_scale and reads_scale
    if isinstance(adapt, TipAdapterAdapt) or not reads_scale:
        return False
    return not (isinstance(adapt, ProbeAdapt) and isinstance(objective, ClassifyObjective))


def _apply_adapter(
    model: DualEncoder, adapt: Adapter, objective: ObjectiveSection, seed: int
) -> str:
    """An adapter in the towers that the objective reads, and the whole weights named beside it."""
    classify = isinstance(objective, ClassifyObjective)
    if classify and model.head is None:
        raise ModelError("objective.kind: 'classify' needs a head; see init_head")
    read = read_towers(objective)
    towers = [name for name in adapt.towers if name in read]
    if not towers:
        raise AdaptError(
            f"adapt.towers: {', '.join(adapt.towers)}: objective.kind {objective.kind!r} reads "
            f"{read[0]}s alone; allowed: a list with {read[0]}"
        )
    attach(model, adapt.model_copy(update={"towers": towers}), seed=seed)
    only_projections = isinstance(adapt, ProjectionAdapt)
    detect = isinstance(objective, DetectObjective)
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    learns = [] if only_projections else [f"{adapt.kind} in {' and '.join(towers)} tower"]
    for name in adapter_names(model):
        model.get_parameter(name).requires_grad_(True)
    for name in towers:
        if isinstance(adapt, ProjectionAdapt) or adapt.projections:
            parts = projection(model.get_submodule(name))
            for part in parts:
                part.requires_grad_(True)
            learns += [f"{name} projection"] if parts else []
    if classify and adapt.head:
        assert model.head is not None
        model.head.requires_grad_(True)
        learns.append("head")
    if detect:
        learns += _let_detect(model)
    if scale_learns(adapt, objective):
        model.logit_scale.requires_grad_(True)
        learns.append("logit scale")
        if isinstance(objective, SiglipObjective) and model.logit_bias is not None:
            model.logit_bias.requires_grad_(True)
            learns.append("logit bias")
    model.norms_frozen = True
    model.lock(set(_TOWERS) if only_projections else set(_TOWERS) - set(towers))
    return f"{', '.join(learns)}: {_share(model)}"


def _apply_cache(model: DualEncoder, adapt: TipAdapterAdapt) -> str:
    """Of a model with a cache, its keys where they are to learn."""
    if model.head is None or model.head.keys is None:
        raise ModelError("adapt.kind: 'tip_adapter' needs a head with a cache; see add_cache")
    model.requires_grad_(False)
    model.head.keys.requires_grad_(adapt.learn)
    model.lock(_TOWERS)
    return f"{'keys of the cache' if adapt.learn else 'nothing by steps'}: {_share(model)}"


def _share(model: nn.Module) -> str:
    every = sum(parameter.numel() for parameter in model.parameters())
    learning = sum(p.numel() for p in model.parameters() if p.requires_grad)
    return f"{learning:,} of {every:,} parameters"
