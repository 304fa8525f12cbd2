"""Averages of weights: between a start and what was trained from it, and of several runs.

WiSE-FT (Wortsman et al. 2022a, Robust fine-tuning of zero-shot models) mixes the two ends of one
fine-tuning; a soup (Wortsman et al. 2022b, Model soups) is the mean of several with one start.
"""

import copy
from collections.abc import Sequence

import torch
from torch import Tensor

from ptft.errors import ModelError
from ptft.model.encoder import DualEncoder

__all__ = ["interpolate", "soup"]


def interpolate(start: DualEncoder, trained: DualEncoder, alpha: float) -> DualEncoder:
    """(1 - alpha) * start + alpha * trained, as a new model of the trained one's kind.

    Only floating-point tensors are mixed: counters of batch norms are the trained model's, and so
    is a classifier that the start lacks or that has other classes.

    Args:
        alpha: share of the trained weights; 0 is the start, 1 the trained model.

    Raises:
        ModelError: the two are not of one architecture.
    """
    _check_cache(start, trained)
    before = start.state_dict()
    mixed = copy.deepcopy(trained)
    if start.head is not None and start.spec.classes != trained.spec.classes:
        before = {name: value for name, value in before.items() if not name.startswith("head.")}
    state = {}
    for name, after in mixed.state_dict().items():
        other = before.get(name)
        if name.startswith("head.") and other is None:
            state[name] = after
            continue
        if other is None or other.shape != after.shape:
            raise ModelError(
                f"{name}: cannot be averaged: {'absent' if other is None else tuple(other.shape)} "
                f"at the start, {tuple(after.shape)} after training; merge adapters first"
            )
        state[name] = _mix([other, after], [1.0 - alpha, alpha])
    mixed.load_state_dict(state)
    return mixed


def soup(models: Sequence[DualEncoder]) -> DualEncoder:
    """The mean of models that were trained from one start, as a new model.

    Raises:
        ModelError: they are not of one architecture, or have other classes.
    """
    first = models[0]
    mixed = copy.deepcopy(first)
    states = [model.state_dict() for model in models]
    for model, state in zip(models, states, strict=True):
        if model.spec.classes != first.spec.classes:
            raise ModelError("a soup needs models of the same classes in the same order")
        _check_cache(first, model)
        for name, value in states[0].items():
            if name not in state or state[name].shape != value.shape:
                raise ModelError(f"{name}: not the same in all models of the soup")
    share = [1.0 / len(models)] * len(models)
    mixed.load_state_dict({name: _mix([s[name] for s in states], share) for name in states[0]})
    return mixed


def _check_cache(one: DualEncoder, other: DualEncoder) -> None:
    """Keys of a Tip-Adapter's cache can be averaged where they are of the same pictures."""
    here, there = (None if model.head is None else model.head.labels for model in (one, other))
    if here is not None and there is not None and not torch.equal(here, there):
        raise ModelError("head.labels: caches of other pictures cannot be averaged")


def _mix(values: Sequence[Tensor], shares: Sequence[float]) -> Tensor:
    if not values[-1].is_floating_point():
        return values[-1]
    total = sum(share * value.double() for share, value in zip(shares, values, strict=True))
    assert isinstance(total, Tensor)
    return total.to(values[-1].dtype) if torch.isfinite(total).all() else values[-1]
