"""The learning rate as a function of samples seen, and nothing else: no state to save."""

import math
from collections.abc import Iterable

from ptft.recipe import OptimSection

__all__ = ["learning_rate_factor", "set_learning_rate", "total_samples"]


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
