"""What of a model learns."""

from torch import nn

from ptft.errors import ModelError
from ptft.model.encoder import DualEncoder
from ptft.model.towers import projection
from ptft.recipe import (
    AdaptSection,
    ClassifyObjective,
    ObjectiveSection,
    ProbeAdapt,
    SiglipObjective,
)

__all__ = ["active_batch_norm", "apply_adapt"]

_TOWERS = ("image", "text")


def apply_adapt(model: DualEncoder, adapt: AdaptSection, objective: ObjectiveSection) -> str:
    """Let learn what the recipe says, and lock the rest, in place.

    ``full``: everything that the objective reads, but for the towers in ``lock``, whose projections
    still learn. ``probe``: the head (``classify``), or the projections with the logit scale and
    bias. A locked tower stays in eval mode, so that its batch statistics do not move. What the
    objective does not read (the text tower of a classifier) is locked too: it gets no gradient.

    Returns:
        What learns, for people: ``text tower, image projection, logit scale: 1,234 of 5,678
        parameters``.

    Raises:
        ModelError: a classifier without a head.
    """
    classify = isinstance(objective, ClassifyObjective)
    probe = isinstance(adapt, ProbeAdapt)
    locked = set(_TOWERS) if isinstance(adapt, ProbeAdapt) else set(adapt.lock)
    model.norms_frozen = not isinstance(adapt, ProbeAdapt) and adapt.freeze_norm
    unused = {"text"} if classify else set()
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
    if not (classify and probe):
        model.logit_scale.requires_grad_(True)
        learns.append("logit scale")
    if isinstance(objective, SiglipObjective) and model.logit_bias is not None:
        model.logit_bias.requires_grad_(True)
        learns.append("logit bias")
    model.lock(locked | unused)
    return f"{', '.join(learns)}: {_share(model)}"


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


def _share(model: nn.Module) -> str:
    every = sum(parameter.numel() for parameter in model.parameters())
    learning = sum(p.numel() for p in model.parameters() if p.requires_grad)
    return f"{learning:,} of {every:,} parameters"
