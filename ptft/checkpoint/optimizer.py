"""The state of any torch or timm optimiser as named tensors and JSON, and back.

``torch.save`` and ``torch.distributed.checkpoint`` would pickle it (the latter its metadata), and a
pickle may run code when it is read. ``Optimizer.load_state_dict`` is not used either: it casts what
an optimiser keeps in a narrower type to the parameter's, and the next step would differ.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from ptft.errors import CheckpointError
from ptft.optim import parameter_names

__all__ = ["pack_optimizer", "restore_optimizer"]

_Read = Callable[[str, Tensor | None], Tensor]

# Of a parameter group, but not state: how an update is computed on the device of this process
_IMPLEMENTATION = ("params", "fused", "foreach", "capturable", "differentiable")

# What of a group can change between steps; else it is a setting (a dtype), as the recipe built it
_STATE = (bool, int, float, str, list, tuple, dict, Tensor, type(None))


def pack_optimizer(optimizer: torch.optim.Optimizer) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Split an optimiser's state into tensors by name and what JSON can hold.

    A tensor of a parameter's state is named ``exp_avg/image.trunk.blocks.0...``, one in a list
    ``Q.0/image...``; numbers, strings and None stay in the JSON, as do the parameter groups.

    Raises:
        CheckpointError: the state holds something else.
    """
    tensors: dict[str, Tensor] = {}
    state: dict[str, dict[str, Any]] = {}
    for name, parameter in _parameters(optimizer).items():
        for key, value in optimizer.state.get(parameter, {}).items():
            packed = _pack(value, key, name, tensors)
            state.setdefault(name, {})[key] = packed
    groups = [
        {
            key: _pack(value, f"{index}.{key}", "group", tensors)
            for key, value in group.items()
            if key not in _IMPLEMENTATION and isinstance(value, _STATE)
        }
        for index, group in enumerate(optimizer.param_groups)
    ]
    return tensors, {"state": state, "groups": groups}


def restore_optimizer(
    optimizer: torch.optim.Optimizer, values: Mapping[str, Any], read: _Read, *, where: str
) -> None:
    """Put a packed state into an optimiser built from the same recipe.

    Args:
        values: the JSON part.
        read: gives a tensor by name; with the parameter that it belongs to, in the parameter's
            memory layout if it has its shape.
        where: the checkpoint, for the message.

    Raises:
        CheckpointError: the state is that of other parameters.
    """
    parameters = _parameters(optimizer)
    saved = [name for group in values["groups"] for name in _unpack(group["names"], read, None)]
    for name in saved:
        if name not in parameters:
            raise CheckpointError(f"{where}: holds {name}, which does not learn in this recipe")
    for name in parameters:
        if name not in saved:
            raise CheckpointError(f"{where}: has no optimiser state for {name}")
    if saved != list(parameters) or len(values["groups"]) != len(optimizer.param_groups):
        raise CheckpointError(f"{where}: its parameters stand in other groups than this recipe's")
    optimizer.state.clear()
    for group, packed in zip(optimizer.param_groups, values["groups"], strict=True):
        group.update({key: _unpack(value, read, None) for key, value in packed.items()})
        for name, parameter in zip(group["names"], group["params"], strict=True):
            state = {
                key: _on_device(key, _unpack(value, read, parameter), parameter, group)
                for key, value in values["state"].get(name, {}).items()
            }
            if state:
                optimizer.state[parameter] = state


def _parameters(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    return dict(zip(parameter_names(optimizer), parameters, strict=True))


def _pack(value: Any, key: str, owner: str, tensors: dict[str, Tensor]) -> Any:
    """JSON for a value; a tensor goes under ``key/owner`` and leaves its name behind."""
    if isinstance(value, Tensor):
        label = f"{key}/{owner}"
        tensors[label] = value.detach()
        return {"tensor": label}
    if isinstance(value, list | tuple):
        kind = "list" if isinstance(value, list) else "tuple"
        return {kind: [_pack(v, f"{key}.{i}", owner, tensors) for i, v in enumerate(value)]}
    if isinstance(value, dict):
        packed = {str(k): _pack(v, f"{key}.{k}", owner, tensors) for k, v in value.items()}
        return {"dict": packed}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise CheckpointError(
        f"optim: {key} of {owner} is a {type(value).__name__}; allowed in a checkpoint: tensors, "
        "numbers, strings, and lists and dicts of them"
    )


def _unpack(value: Any, read: _Read, parameter: Tensor | None) -> Any:
    if not isinstance(value, dict):
        return value
    [(kind, content)] = value.items()
    if kind == "tensor":
        return read(content, parameter)
    if kind == "dict":
        return {key: _unpack(v, read, parameter) for key, v in content.items()}
    values = [_unpack(v, read, parameter) for v in content]
    return values if kind == "list" else tuple(values)


def _on_device(key: str, value: Any, parameter: Tensor, group: Mapping[str, Any]) -> Any:
    """A state where its optimiser would have made it: beside the parameter, but for the step count
    of torch's optimisers, which stays on the CPU unless the update runs on the device as a whole.
    """
    if isinstance(value, list | tuple):
        return type(value)(_on_device(key, v, parameter, group) for v in value)
    if isinstance(value, dict):
        return {k: _on_device(key, v, parameter, group) for k, v in value.items()}
    if not isinstance(value, Tensor):
        return value
    if key == "step" and not (group.get("fused") or group.get("capturable")):
        return value
    return value.to(parameter.device)
