"""AdamW, what decays and what does not, and the learning rate as a function of samples seen."""

import math
from collections.abc import Iterable

import torch
from torch import nn

from ptft.errors import TrainingError
from ptft.recipe import OptimSection

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
)


def build_optimizer(model: nn.Module, section: OptimSection) -> torch.optim.AdamW:
    """AdamW over what requires a gradient, in groups by tower and by whether weight decay applies.

    Vectors (norms, biases), position and class embeddings and the logit scale do not decay, as in
    CLIP. Each group carries ``base_lr`` and ``names`` (of its parameters, in order).

    Raises:
        TrainingError: nothing requires a gradient.
    """
    groups: dict[tuple[float, float], dict] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        lr = _learning_rate(name, section)
        plain = parameter.ndim < 2 or any(part in name for part in _NEVER_DECAYED)
        decay = 0.0 if plain else section.weight_decay
        group = groups.setdefault(
            (lr, decay),
            {"params": [], "names": [], "lr": lr, "base_lr": lr, "weight_decay": decay},
        )
        group["params"].append(parameter)
        group["names"].append(name)
    if not groups:
        raise TrainingError("adapt: nothing is left to learn; every parameter is locked")
    return torch.optim.AdamW(
        list(groups.values()), betas=section.betas, eps=section.eps, fused=True
    )


def parameter_names(optimizer: torch.optim.Optimizer) -> list[str]:
    """Names of the parameters in the order of the optimiser's own numbering."""
    return [name for group in optimizer.param_groups for name in group["names"]]


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

    Rises linearly over the ``warmup`` share (the first step is already above 0), then falls along
    half a cosine to 0, or stays at 1.
    """
    warm = section.warmup * total
    after = seen + section.global_batch
    if after < warm:
        return after / warm
    if section.schedule == "constant":
        return 1.0
    share = max(0.0, seen - warm) / max(1.0, total - warm)
    return 0.5 * (1.0 + math.cos(math.pi * min(1.0, share)))


def set_learning_rate(groups: Iterable[dict], factor: float) -> None:
    """Set every group's rate to its own base times ``factor``."""
    for group in groups:
        group["lr"] = group["base_lr"] * factor


def _learning_rate(name: str, section: OptimSection) -> float:
    tower = name.split(".", 1)[0]
    if tower == "image" and section.lr_image is not None:
        return section.lr_image
    if tower == "text" and section.lr_text is not None:
        return section.lr_text
    return section.lr
