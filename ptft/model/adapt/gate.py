"""The integrity gate: before the first step, what is said to learn is seen to learn.

The rules, held on a real batch:

- Every parameter that requires a gradient gets one, and no other does.
- Of an adapter, a projection, the head, the logit scale and bias no gradient is all zero. Where a
  factor starts at zero, zero is due: B A has no gradient for A while B is zero. So what is all zero
  is moved a little and the batch is run again before it is judged.
- Of the base model (``full``), a single tensor may have a zero gradient on a batch (a dead ReLU, a
  saturated gate, the bias of attention's keys, which softmax cancels); a whole tower may not.
- Dropout in an adapter runs in every place and drops, or there is none, as the recipe says.
- The logit scale learns or does not, as the recipe says.

Weights, gradients, random states and batch statistics are afterwards what they were.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from ptft.errors import AdaptError
from ptft.model.adapt.attach import adapter_names, adapter_section
from ptft.model.encoder import DualEncoder
from ptft.model.towers import projection
from ptft.recipe import DoraAdapt, LoraAdapt

__all__ = ["check_trains"]

_NUDGE = 0.01  # standard deviation of what zeros are moved by
_SHOWN = 6  # names in a message


def check_trains(model: DualEncoder, step: Callable[[], object], *, scale_learns: bool) -> None:
    """Hold a model that is ready to learn against the rules above.

    Args:
        model: with ``requires_grad`` as it will be trained.
        step: adds to the parameters the gradients of a batch of the run, of the model as it stands;
            called a few times. Of a contrastive loss, pairs of one caption have to count as
            different, since a batch of nothing else has no gradient.
        scale_learns: whether the recipe lets the logit scale learn.

    Raises:
        AdaptError: a rule is broken, naming the tensors.
    """
    if model.logit_scale.requires_grad != scale_learns:
        said = "learn" if scale_learns else "stay"
        raise AdaptError(f"adapt: logit_scale is to {said}, and does not")
    with _untouched(model):
        _check_gradients(model, step)
        _check_dropout(model, step)


def _check_gradients(model: DualEncoder, step: Callable[[], object]) -> None:
    _quiet(model)
    zero = _zero_gradients(model, step)
    if zero:
        with _nudged(model):
            zero &= _zero_gradients(model, step)
    own = _own(model)
    names = sorted(zero & own)
    if names:
        raise AdaptError(
            f"adapt: said to learn, and the gradient is all zero: {_first(names)}; a frozen zero "
            "behind it does this, as in a residual branch that a new network starts with closed"
        )
    for tower in ("image", "text"):
        learning = {
            name
            for name, parameter in model.named_parameters()
            if parameter.requires_grad and name.startswith(f"{tower}.")
        } - own
        if learning and learning <= zero:
            raise AdaptError(f"adapt: the {tower} tower learns, and all its gradients are zero")


def _zero_gradients(model: DualEncoder, step: Callable[[], object]) -> set[str]:
    """Run the batch once; names of learning parameters whose gradient is all zero.

    Raises:
        AdaptError: a gradient is absent where there should be one, or there where none should be.
    """
    model.zero_grad(set_to_none=True)
    step()
    absent, extra, zero = [], [], set()
    for name, parameter in model.named_parameters():
        if parameter.grad is None:
            if parameter.requires_grad:
                absent.append(name)
        elif not parameter.requires_grad:
            extra.append(name)
        elif not bool(parameter.grad.any()):
            zero.add(name)
    if all(parameter.grad is None for parameter in model.parameters()):
        raise AdaptError("adapt: the loss does not depend on anything that learns")
    if absent:
        raise AdaptError(f"adapt: said to learn, and no gradient reaches it: {_first(absent)}")
    if extra:
        raise AdaptError(f"adapt: said to stay, and gets a gradient: {_first(extra)}")
    return zero


def _own(model: DualEncoder) -> set[str]:
    """Names of what must not be without effect on a single batch: all but the base's insides."""
    own = {*adapter_names(model), "logit_scale", "logit_bias", "head.weight", "head.bias"}
    projections = {
        id(parameter)
        for tower in (model.image, model.text)
        for part in projection(tower)
        for parameter in (part.parameters() if isinstance(part, nn.Module) else (part,))
    }
    return own | {name for name, p in model.named_parameters() if id(p) in projections}


def _check_dropout(model: DualEncoder, step: Callable[[], object]) -> None:
    """Find out which dropouts of the adapter are called, and drop, while training."""
    section = None if model.spec.adapter is None else adapter_section(model.spec.adapter)
    if not isinstance(section, LoraAdapt | DoraAdapt):
        return
    layers = {name.rsplit(".lora_A.", 1)[0] for name in adapter_names(model) if ".lora_A." in name}
    drop: set[str] = set()
    hooks = []
    for layer in layers:
        for part in model.get_submodule(f"{layer}.lora_dropout").modules():

            def note(module: nn.Module, args: tuple, output: Tensor, layer: str = layer) -> None:
                if isinstance(module, nn.Dropout) and module.training and module.p > 0:
                    drop.add(layer)

            hooks.append(part.register_forward_hook(note))
    model.train()
    step()
    for hook in hooks:
        hook.remove()
    wrong = sorted(layers - drop) if section.dropout > 0 else sorted(drop)
    if wrong:
        does = "nothing is dropped" if section.dropout > 0 else "something is dropped"
        raise AdaptError(f"adapt.dropout: {section.dropout}: {does} in {_first(wrong)}")


def _quiet(model: DualEncoder) -> None:
    """Train mode without chance: batch norms as when training, dropout and its kin off."""
    model.train()
    for module in model.modules():
        if not isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.training = False


@contextmanager
def _nudged(model: nn.Module) -> Iterator[None]:
    """Learning parameters that are all zero are small random numbers inside."""
    generator = torch.Generator().manual_seed(0)
    zeros = [p for p in model.parameters() if p.requires_grad and not bool(p.any())]
    with torch.no_grad():
        for parameter in zeros:
            noise = torch.randn(parameter.shape, generator=generator) * _NUDGE
            parameter.copy_(noise)
    try:
        yield
    finally:
        with torch.no_grad():
            for parameter in zeros:
                parameter.zero_()


@contextmanager
def _untouched(model: DualEncoder) -> Iterator[None]:
    """Buffers, gradients, modes and random states as they were, whatever happens inside."""
    training = model.training
    buffers = [(buffer, buffer.clone()) for buffer in model.buffers()]
    devices = [model.device] if model.device.type == "cuda" else []
    try:
        with torch.random.fork_rng(devices):
            yield
    finally:
        with torch.no_grad():
            for buffer, before in buffers:
                buffer.copy_(before)
        model.zero_grad(set_to_none=True)
        model.train(training)


def _first(names: list[str]) -> str:
    shown = ", ".join(names[:_SHOWN])
    return shown if len(names) <= _SHOWN else f"{shown}, ... ({len(names)} in all)"
