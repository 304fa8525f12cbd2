"""Averages of weights: between a start and what was trained from it, and of several runs.

WiSE-FT (Wortsman et al. 2022a, Robust fine-tuning of zero-shot models) mixes the two ends of one
fine-tuning; a soup (Wortsman et al. 2022b, Model soups) is the mean of several with one start.
"""

import copy
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from ptft.errors import ModelError
from ptft.model.encoder import DualEncoder
from ptft.model.head import EVEN

__all__ = ["check_alike", "interpolate", "soup"]

# Parts of keys of an architecture that say where it came from, not what it computes
_ORIGIN = ("pretrained", "hf_model_name", "hf_tokenizer_name", "init_logit")


def interpolate(
    start: DualEncoder, trained: DualEncoder, alpha: float, *, new_detector: bool = False
) -> DualEncoder:
    """(1 - alpha) * start + alpha * trained, as a new model of the trained one's kind.

    Only floating-point tensors are mixed: counters of batch norms are the trained model's, and so
    is a classifier that the start lacks or that has other classes.

    Args:
        alpha: share of the trained weights; 0 is the start, 1 the trained model.
        new_detector: the start's detector has learned nothing, and the trained one's stays.

    Raises:
        ModelError: the two are not of one architecture.
    """
    _check_cache(start, trained)
    before = start.state_dict()
    if start.head is not None and _head_of(start) != _head_of(trained):
        before = {name: value for name, value in before.items() if not name.startswith("head.")}
    if new_detector:
        before = {name: one for name, one in before.items() if not name.startswith("detector.")}
    state = trained.state_dict()
    for name, after in state.items():
        other = before.get(name)
        if name.startswith(("head.", "detector.")) and other is None:
            continue
        if other is None or other.shape != after.shape:
            raise ModelError(
                f"{name}: cannot be averaged: {'absent' if other is None else tuple(other.shape)} "
                f"at the start, {tuple(after.shape)} after training; merge adapters first"
            )
    return _copy_with(
        trained,
        (
            (name, _mix([before[name], after], [1.0 - alpha, alpha]))
            for name, after in state.items()
            if name in before
        ),
    )


def soup(models: Sequence[DualEncoder]) -> DualEncoder:
    """The mean of models that were trained from one start, as a new model.

    Raises:
        ModelError: they are not of one architecture, or have other classes.
    """
    first = models[0]
    states = [model.state_dict() for model in models]
    for model, state in zip(models, states, strict=True):
        if _head_of(model) != _head_of(first):
            raise ModelError(
                "a soup needs models of the same classes in the same order, reading the same"
            )
        _check_cache(first, model)
        for name in [*states[0], *(name for name in state if name not in states[0])]:
            one, other = states[0].get(name), state.get(name)
            if one is None or other is None or one.shape != other.shape:
                raise ModelError(f"{name}: not the same in all models of the soup")
    share = [1.0 / len(models)] * len(models)
    return _copy_with(
        first, ((name, _mix([state[name] for state in states], share)) for name in states[0])
    )


def check_alike(
    first: DualEncoder, other: DualEncoder, *, names: tuple[str, str], reading: bool = True
) -> None:
    """Two models read pictures and texts alike and compute alike, so that their mean is a model.

    The shapes of the weights do not show it: other pixel means or another activation have none.

    Args:
        names: of the two, for the message.
        reading: whether they also have to read pictures' files alike; of a start and what was
            trained from it the latter's way is the mix's.

    Raises:
        ModelError: naming the first setting in which they differ.
    """
    one, two = (_settings(model) for model in (first, other))
    for key in sorted({*one, *two}):
        if key.startswith("preprocess.reading.") and not reading:
            continue
        if one.get(key) != two.get(key):
            values = "" if key == "tokenizer.json" else f": {one.get(key)!r}, {two.get(key)!r}"
            raise ModelError(
                f"{names[0]} and {names[1]} cannot be mixed: they differ in {key}{values}; "
                "allowed: models of one architecture, tokenizer and preprocessing"
            )


def _head_of(model: DualEncoder) -> tuple[tuple[str, ...], str, bool]:
    return model.spec.classes, model.spec.reads, model.spec.thresholds is None


def _check_cache(one: DualEncoder, other: DualEncoder) -> None:
    """Keys of a Tip-Adapter's cache can be averaged where they are of the same pictures."""
    here, there = (None if model.head is None else model.head.labels for model in (one, other))
    if here is not None and there is not None and not torch.equal(here, there):
        raise ModelError("head.labels: caches of other pictures cannot be averaged")


def _settings(model: DualEncoder) -> dict[str, Any]:
    """What decides the outputs beside the weights, by dotted key."""
    spec = model.spec
    values = {
        "model": dict(spec.config),
        "image_args": dict(spec.image_args),
        "preprocess": spec.preprocess.to_config(),
        "tokenizer": {**spec.tokenizer.kwargs(), "json": spec.tokenizer.json},
    }
    return dict(_leaves(json.loads(json.dumps(values))))  # in JSON a tuple is a list


def _leaves(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for key, value in values.items():
        if isinstance(value, Mapping):
            found += _leaves(value, f"{prefix}{key}.")
        elif not any(word in key for word in _ORIGIN):
            found.append((f"{prefix}{key}", value))
    return found


def _copy_with(model: DualEncoder, values: Iterable[tuple[str, Tensor]]) -> DualEncoder:
    """A copy of a model that has other values for some tensors, in place of copies of the old. What
    was chosen for the old goes: what a detector counts by, and thresholds of classes, which are
    told again where they are more likely than not."""
    state = model.state_dict(keep_vars=True)
    instead: dict[int, Any] = {id(model.spec): model.spec}  # is never written to
    for name, value in values:
        old = state[name]
        new = torch.empty_like(old).copy_(value)
        if isinstance(old, nn.Parameter):
            new = nn.Parameter(new, requires_grad=old.requires_grad)
        instead[id(old)] = new
    made = copy.deepcopy(model, instead)
    if made.detector is not None and made.detector.spec.counting is not None:
        made.detector.spec = replace(made.detector.spec, counting=None)
        made.set_detector(made.detector)
    if made.spec.thresholds is not None:
        made.spec = made.spec.with_(thresholds=(EVEN,) * len(made.spec.thresholds))
    return made


def _mix(values: Sequence[Tensor], shares: Sequence[float]) -> Tensor:
    """The weighted sum, in float64; the last value where that is not finite."""
    last = values[-1]
    if not last.is_floating_point():
        return last
    total = values[0].double().mul_(shares[0])
    for share, value in zip(shares[1:], values[1:], strict=True):
        total.add_(value, alpha=share)
    finite = torch.isfinite(total.sum()) or torch.isfinite(total).all()  # the sum is soon taken
    return total if finite else last
