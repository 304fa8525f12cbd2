"""The optimiser of a recipe over a model's parameters, in groups by rate and weight decay; and the
learning rate as a function of samples seen, and nothing else: no state to save."""

import inspect
import math
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import nn

from ptft.compat import import_timm
from ptft.errors import RecipeError, TrainingError, suggest
from ptft.optim.lbfgs import Lbfgs
from ptft.recipe import OptimSection
from ptft.recipe.check import check_optimizer
from ptft.recipe.optim import ADAMW, LBFGS

__all__ = [
    "build_optimizer",
    "learning_rate_factor",
    "parameter_names",
    "set_learning_rate",
    "total_samples",
]

_NEVER_DECAYED = (
    "logit_scale",
    "logit_bias",
    "positional_embedding",
    "pos_embed",
    "class_embedding",
    "cls_token",
    "cls_emb",
    "reg_token",
    "ia3_l",  # factors around 1
    "lora_magnitude_vector",
    "prefix.tokens",
)
_CLIP_BETAS, _CLIP_EPS = (0.9, 0.98), 1e-6  # Radford et al. 2021, table 20, for vision transformers
_OURS = ("params", "lr", "weight_decay")  # arguments that the groups carry


def build_optimizer(
    model: nn.Module, section: OptimSection, *, depths: Mapping[str, int] | None = None
) -> torch.optim.Optimizer:
    """The recipe's optimiser over what requires a gradient, in groups by rate and weight decay.

    Vectors (norms, biases), position and class embeddings and the logit scale do not decay, as in
    CLIP. Under muon, embeddings and the head are left to its AdamW, as its author has it. Each
    group carries ``base_lr`` and ``names`` (of its parameters, in order).

    Args:
        depths: blocks between each parameter and the output (:func:`ptft.model.layer_depths`);
            needed for ``layer_decay``.

    Raises:
        TrainingError: nothing requires a gradient.
        RecipeError: no such optimiser, or an argument that it does not take.
    """
    check_optimizer(section)
    groups = _groups(model, section, depths)
    if not groups:
        raise TrainingError("adapt: nothing is left to learn; every parameter is locked")
    if section.optimizer == ADAMW:
        betas = section.betas or _CLIP_BETAS
        eps = _CLIP_EPS if section.eps is None else section.eps
        return torch.optim.AdamW(groups, lr=section.lr, betas=betas, eps=eps, fused=True)
    if section.optimizer == LBFGS:
        return Lbfgs(groups)
    return _from_timm(groups, section)


def parameter_names(optimizer: torch.optim.Optimizer) -> list[str]:
    """Names of the parameters in the order of the optimiser's own numbering."""
    return [name for group in optimizer.param_groups for name in group["names"]]


def _groups(
    model: nn.Module, section: OptimSection, depths: Mapping[str, int] | None
) -> list[dict[str, Any]]:
    assert section.layer_decay is None or depths is not None
    muon = "muon" in section.optimizer
    embeddings = {id(m.weight) for m in model.modules() if isinstance(m, nn.Embedding)}
    groups: dict[tuple[float, float, bool], dict[str, Any]] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        lr = _learning_rate(name, section)
        if section.layer_decay is not None and depths is not None:
            lr *= section.layer_decay ** depths[name]
        special = any(part in name for part in _NEVER_DECAYED)
        decay = 0.0 if parameter.ndim < 2 or special else section.weight_decay
        # of no use to orthogonalise: tables, rows, and the layer whose rows are classes
        lookup = id(parameter) in embeddings or parameter.shape[0] == 1 or name.startswith("head.")
        fallback = muon and (special or lookup)
        group = groups.setdefault(
            (lr, decay, fallback),
            {"params": [], "names": [], "lr": lr, "base_lr": lr, "weight_decay": decay},
        )
        if fallback:
            group["use_fallback"] = True
        group["params"].append(parameter)
        group["names"].append(name)
    return list(groups.values())


def _learning_rate(name: str, section: OptimSection) -> float:
    tower = name.split(".", 1)[0]
    if tower in ("head", "detector") and section.lr_head is not None:
        return section.lr_head
    if tower == "image" and section.lr_image is not None:
        return section.lr_image
    if tower == "text" and section.lr_text is not None:
        return section.lr_text
    return section.lr


def _from_timm(groups: list[dict[str, Any]], section: OptimSection) -> torch.optim.Optimizer:
    """timm's optimiser of the name, with timm's defaults for whatever the recipe leaves out."""
    import_timm()
    from timm.optim._optim_factory import create_optimizer_v2, get_optimizer_class

    name = section.optimizer
    takes = inspect.signature(get_optimizer_class(name, bind_defaults=False)).parameters
    for key in section.optimizer_args:
        if key not in takes or key in _OURS:
            hint = suggest(key, [one for one in takes if one not in _OURS])
            raise RecipeError(f"optim.optimizer_args.{key}: {name} takes no such argument; {hint}")
    given: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value
        for key, value in section.optimizer_args.items()
    }
    if section.betas is not None:
        given["betas"] = section.betas
    if section.eps is not None:
        given["eps"] = section.eps
    try:
        optimizer = create_optimizer_v2(groups, opt=name, lr=section.lr, **given)
    except (AssertionError, TypeError, ValueError) as error:
        raise RecipeError(f"optim.optimizer: {name!r} with {given}: {error}") from error
    for group in optimizer.param_groups:
        if "max_lr_snapshot" in group:  # decay that follows the schedule, of each group's own rate
            group["max_lr_snapshot"] = group["base_lr"]
    return optimizer


def total_samples(section: OptimSection, samples: int) -> int:
    """Length of training in samples, a whole number of steps, for a training set of ``samples``."""
    if section.samples_seen is not None:
        wanted = section.samples_seen
    else:
        assert section.epochs is not None
        wanted = math.ceil(section.epochs * samples)
    return max(1, math.ceil(wanted / section.global_batch)) * section.global_batch


def learning_rate_factor(section: OptimSection, seen: int, total: int) -> float:
    """Factor on the learning rate for the step that starts after ``seen`` of ``total`` samples.

    Rises linearly over the ``warmup`` share (the first step is already above 0). Then it follows
    half a cosine to ``final_lr``; or stays at 1 until the ``cooldown`` share at the end, over which
    it falls to ``final_lr`` in a straight line (``constant``) or as 1 - sqrt (``wsd``: warm-up,
    stable, decay; Hu et al. 2024, with the shape that Hägele et al. 2024 found best).
    """
    warm = section.warmup * total
    after = seen + section.global_batch
    if after < warm:
        return after / warm
    if section.schedule == "cosine":
        height = 0.5 * (1.0 + math.cos(math.pi * _share(seen, warm, total)))
    else:
        share = _share(seen, total - section.cooldown_share * total, total)
        height = 1.0 - (math.sqrt(share) if section.schedule == "wsd" else share)
    return section.final_lr + (1.0 - section.final_lr) * height


def set_learning_rate(groups: Iterable[dict], factor: float) -> None:
    """Set every group's rate to its own base times ``factor``."""
    for group in groups:
        group["lr"] = group["base_lr"] * factor


def _share(seen: int, start: float, end: float) -> float:
    """How much of the way from ``start`` to ``end`` is behind ``seen``; 0 before it, at most 1."""
    return min(1.0, max(0.0, seen - start) / max(1.0, end - start))
