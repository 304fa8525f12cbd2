"""A second device on a machine without one: what would go wrong on a GPU goes wrong here.

Inside :func:`second_device` torch says that it sees a GPU. A tensor that is moved there is an
:class:`OnDevice`, which holds a tensor of the host, says ``cuda:0`` to whoever asks, and computes
by the CPU's own kernels: the numbers are those of a run on the CPU. Every operation of torch passes
a dispatch mode, which knows what a GPU would make of it:

- operands on the host and on the device together are an error, as they are there. (As there, a
  number of no dimension may come from the host, and places to index by may, at the price of a
  copy.)
- what the host cannot know before the device is done makes it wait: ``item``, ``nonzero``,
  ``unique``, ``equal``, a mask as an index, a copy to the host, and a copy from it unless it is
  asked to go on (``non_blocking``). That is the list of ``torch.cuda.set_sync_debug_mode``.
- a copy that goes on must start from pinned memory, or it does not.

Random numbers of the device are a generator of its own, as on a GPU. Not here: kernels, their
rounding and speed, memory, the order of streams, NCCL, triton.
"""

import contextlib
from collections.abc import Iterator
from functools import partial
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor
from torch.distributed.tensor import DTensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from tests.support.on_device import DEVICE, HOST, OnDevice, Pinned, Random, Seen, held, where

__all__ = ["DEVICE", "OnDevice", "Seen", "second_device"]

_ATEN = torch.ops.aten
_WAITS = {  # of the device's tensors: their answer is a number of the host, or decides a shape
    *("_local_scalar_dense", "item", "is_nonzero", "equal", "nonzero", "masked_select", "argwhere"),
    *("_unique", "_unique2", "unique_dim", "unique_consecutive", "bincount", "_assert_async"),
}
_INDEXED = {"index", "index_put", "index_put_", "_index_put_impl_", "_unsafe_index"}
_KNOWN = {Tensor, torch.nn.Parameter, OnDevice}
_COPIES = {"_to_copy", "copy_", "copy"}
_REFUSED = {"set_", "resize_", "resize_as_"}  # would leave the wrapper with another's shape


class _Operations(TorchDispatchMode):
    """Each operation, by the rules of two devices."""

    def __init__(self, seen: Seen, pinned: Pinned, random: Random) -> None:
        super().__init__()
        self.seen, self.pinned, self.random = seen, pinned, random
        self.inside = False  # a call of torch's that was given tensors of the device

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if other := {*types} - _KNOWN:  # sharded, made of such as are known; or nowhere
            return func(*args, **kwargs) if FakeTensor in other else NotImplemented
        name = func._schema.name.split("::")[1]
        given = [one for one in tree_leaves((args, kwargs)) if isinstance(one, Tensor)]
        on = [one for one in given if isinstance(one, OnDevice)]
        device = kwargs.get("device")
        if device is not None and torch.device(device).type == DEVICE.type:
            kwargs["device"] = HOST
        to_device = self._to_device(name, on, device)
        if on or to_device:
            self.seen.calls += 1
        if name in _REFUSED and on:
            raise NotImplementedError(f"{func}: not on the second device")
        if name in _COPIES:
            self._copied(name, args, kwargs, to_device)
        else:
            self._check(func, name, given, on)
        draws = torch.Tag.nondeterministic_seeded in func.tags and to_device
        with self.random.drawn() if draws else contextlib.nullcontext():
            out = func(*tree_map(held, args), **tree_map(held, kwargs))
        if name == "copy_":
            return args[0]
        if not to_device:
            return out
        known = {id(one.held): one for one in on}  # of what is changed in place the same is given
        return tree_map(lambda one: known.get(id(one), _wrap(one)), out)

    def _to_device(self, name: str, on: list[OnDevice], device: Any) -> bool:
        """Whether what comes out lies on the device."""
        if device is None:
            return bool(on)
        if torch.device(device) == HOST and (name not in _COPIES or _in_backward()):
            # torch's own code makes tensors "where this one is", which it takes for the host
            return bool(on) or self.inside or _in_backward()
        return torch.device(device).type == DEVICE.type

    def _check(self, func: Any, name: str, given: list[Tensor], on: list[OnDevice]) -> None:
        if not on:
            return
        for one in given:
            if isinstance(one, OnDevice) or (one.ndim == 0 and not func._schema.is_mutable):
                continue
            if name in _INDEXED and not one.is_floating_point() and on[0] is given[0]:
                self.seen.wait(f"{name} by places of the host")
                continue
            if one.ndim:
                raise RuntimeError(
                    "Expected all tensors to be on the same device, but found at least two "
                    f"devices, {DEVICE} and {HOST}! (in {func})"
                )
        if name in _WAITS or (
            name in _INDEXED and any(one.dtype in (torch.bool, torch.uint8) for one in on[1:])
        ):
            self.seen.wait(name)

    def _copied(self, name: str, args: Any, kwargs: Any, to_device: bool) -> None:
        """A copy between the two: who waits for it."""
        target, source = (args[0], args[1]) if name == "copy_" else (None, args[0])
        goes = isinstance(target, OnDevice) if name == "copy_" else to_device
        if goes == isinstance(source, OnDevice):
            return
        going_on = kwargs.get("non_blocking", False) or (name == "copy_" and args[2:] == (True,))
        if not goes:
            if not (going_on and target is not None and target in self.pinned):
                self.seen.wait("a copy to the host")
        elif not going_on and (source.ndim or name == "_to_copy"):
            self.seen.wait("a copy to the device")
        elif going_on and source not in self.pinned:
            self.seen.pageable.append(f"a copy to the device at {where()}")


def _wrap(one: Any) -> Any:
    return OnDevice(one) if type(one) is Tensor else one


def _in_backward() -> bool:
    return torch._C._current_graph_task_id() != -1  # type: ignore[attr-defined]


def _indexed(value: Any) -> Any:
    """``cuda`` is this device; torch would ask CUDA which one is current."""
    if isinstance(value, torch.device) and value.type == DEVICE.type:
        return DEVICE
    return DEVICE if isinstance(value, str) and value == DEVICE.type else value


class _Calls(TorchFunctionMode):
    """Calls of torch that never reach its dispatcher, or reach it as something else."""

    def __init__(self, operations: _Operations) -> None:
        super().__init__()
        self.operations = operations

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.device:
            return func(*args, **(kwargs or {}))
        args, kwargs = tree_map(_indexed, (tuple(args), dict(kwargs or {})))
        name, first = getattr(func, "__name__", ""), args[0] if args else None
        seen, on = self.operations.seen, isinstance(first, OnDevice)
        if name in ("to", "cpu", "cuda") and isinstance(first, Tensor):
            return self._moved(func, name, first, args[1:], kwargs)
        if name in ("tensor", "as_tensor", "asarray") and kwargs.get("device") == DEVICE:
            made = func(*args, **{**kwargs, "device": None})
            return made if isinstance(made, OnDevice) else _copy(made, DEVICE)
        if name == "new_tensor" and on:
            return _copy(torch.Tensor.new_tensor(first.held, *args[1:], **kwargs), DEVICE)
        if name == "pin_memory" and isinstance(first, Tensor):
            if on:
                raise RuntimeError("only dense CPU tensors can be pinned")
            return first if first in self.operations.pinned else self.operations.pinned.add(first)
        if name == "is_pinned" and isinstance(first, Tensor):
            return first in self.operations.pinned
        if on and name in ("numpy", "__array__"):
            raise TypeError("can't convert cuda:0 device type tensor to numpy; use Tensor.cpu()")
        if on and name == "tolist":
            seen.wait("tolist")
            return first.held.tolist()
        before, operations = self.operations.inside, self.operations
        operations.inside = any(isinstance(one, OnDevice) for one in tree_leaves((args, kwargs)))
        try:
            return func(*args, **kwargs)
        finally:
            operations.inside = before

    @staticmethod
    def _moved(func: Any, name: str, tensor: Tensor, args: Any, kwargs: Any) -> Any:
        """``to``, ``cpu``, ``cuda``: between the devices a copy, on one of them what it was."""
        if name == "to":
            goal, dtype, going_on, again = _to_what(*args, **kwargs)
        else:
            goal, dtype, again = HOST if name == "cpu" else DEVICE, None, False
            going_on = kwargs.get("non_blocking", False)
        layout = kwargs.get("memory_format", torch.preserve_format)
        if goal is not None and (goal.type == DEVICE.type) != tensor.is_cuda:
            tensor = _copy(tensor, goal, non_blocking=going_on)
        dtype = dtype or tensor.dtype
        return torch.Tensor.to(tensor, dtype=dtype, copy=again, memory_format=layout)


def _to_what(
    first: Any = None, *rest: Any, device: Any = None, dtype: Any = None, **options: Any
) -> tuple[torch.device | None, torch.dtype | None, bool, bool]:
    """What ``Tensor.to`` is asked for: device, type, whether to go on, whether to copy anyhow."""
    if isinstance(first, Tensor):
        device, dtype = first.device, first.dtype
    elif isinstance(first, torch.dtype):
        dtype = first
    else:
        device = first if first is not None else device
        if rest:
            dtype, *rest = rest  # type: ignore[assignment]
    going_on, again = [*rest, False, False][:2]
    return (
        None if device is None else torch.device(device),
        dtype,
        options.get("non_blocking", going_on),
        options.get("copy", again),
    )


def _copy(tensor: Tensor, device: torch.device, *, non_blocking: bool = False) -> Tensor:
    copied: Tensor = _ATEN._to_copy(tensor, device=device, non_blocking=non_blocking)
    return copied


def _grouped(group: Any, tensors: Any, with_indices: bool = False) -> Any:
    """torch's groups of tensors by device, of which it asks their C++ halves."""
    found: dict[Any, Any] = {}
    for (_, dtype), (lists, places) in group(tensors, with_indices).items():
        on = isinstance(lists[0][0], OnDevice)
        found[DEVICE if on else HOST, dtype] = (lists, places)
    return found


class _Stream:
    """Work of the device in an order of its own; here all of it is done at once."""

    def __init__(self, *arguments: object, **options: object) -> None:
        pass

    def wait_stream(self, other: object) -> None:
        pass

    wait_event = wait_stream

    def record_event(self, event: object = None) -> "_Event":
        return _Event()


class _Event:
    """A point of a stream, which it has always passed."""

    def __init__(self, *arguments: object, **options: object) -> None:
        pass

    def record(self, stream: object = None) -> "_Event":
        return self


def _swapped(swap: Any, one: Tensor, other: Tensor) -> None:
    """A module's weight and what it is moved to: on the device already and laid out alike, it takes
    the memory and stays whoever holds it, as a weight of a real device does."""
    here = isinstance(one, OnDevice) and isinstance(other, OnDevice)
    if here and (one.dtype, one.stride()) == (other.dtype, other.stride()):
        one.held, other.held = other.held, one.held
    else:
        swap(one, other)


@contextlib.contextmanager
def second_device(count: int = 1) -> Iterator[Seen]:
    """A device for this process, until the end of the block; tensors there are lost with it.

    Args:
        count: of devices that torch says there are; each rank has its own, and calls it the first.
    """
    seen, random, pinned = Seen(), Random(), Pinned()
    operations = _Operations(seen, pinned, random)
    plain = torch.autocast

    def autocast(device_type: str, *arguments: Any, **options: Any) -> Any:
        return plain("cpu", *arguments, **options)  # by the lists of the kernels that compute here

    empty = torch.empty

    def pinnable(*arguments: Any, pin_memory: bool = False, **options: Any) -> Tensor:
        made = empty(*arguments, **options)  # by whichever thread
        return pinned.add(made) if pin_memory else made

    instead: dict[str, Any] = {
        "_lazy_init": lambda: None,
        "is_available": lambda: True,
        "is_bf16_supported": lambda *_: True,
        "device_count": lambda: count,
        "current_device": lambda: 0,
        "manual_seed_all": random.seed,
        "get_rng_state": random.get,
        "set_rng_state": random.set,
        "synchronize": partial(seen.wait, "synchronize"),
        "set_device": lambda device: None,
        "Stream": _Stream,
        "Event": _Event,
        "current_stream": _Stream,
        "stream": lambda stream: contextlib.nullcontext(),
    }
    with contextlib.ExitStack() as stack:
        for name, made in instead.items():
            stack.enter_context(mock.patch.object(torch.cuda, name, made))
        stack.enter_context(mock.patch.object(torch, "autocast", autocast))
        stack.enter_context(mock.patch.object(torch, "empty", pinnable))
        for name in ("device", "is_cuda"):  # torch makes a sharded tensor where its local one is
            of_local = property(lambda sharded, name=name: getattr(sharded._local_tensor, name))  # type: ignore[misc]
            stack.enter_context(mock.patch.object(DTensor, name, of_local, create=True))
        swap = partial(_swapped, torch.utils.swap_tensors)
        stack.enter_context(mock.patch.object(torch.utils, "swap_tensors", swap))
        group = partial(_grouped, torch._C._group_tensors_by_device_and_dtype)
        name = "_group_tensors_by_device_and_dtype"
        stack.enter_context(mock.patch.object(torch._C, name, group))
        stack.enter_context(_Calls(operations))
        stack.enter_context(operations)
        yield seen
