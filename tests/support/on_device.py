"""Tensors of the second device, its pinned memory and random numbers; see ``second_device.py``."""

import contextlib
import threading
import traceback
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

__all__ = ["DEVICE", "HOST", "OnDevice", "Pinned", "Random", "Seen", "held", "where"]

DEVICE, HOST = torch.device("cuda", 0), torch.device("cpu")
_OURS = ("on_device.py", "second_device.py")


class OnDevice(torch.Tensor):
    """A tensor of the second device."""

    held: Tensor

    @staticmethod
    def __new__(cls, held: Tensor) -> "OnDevice":
        assert type(held) is Tensor, f"{type(held)} lies nowhere"
        made = torch.Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls,
            held.size(),
            strides=held.stride(),
            storage_offset=held.storage_offset(),
            dtype=held.dtype,
            layout=held.layout,
            device=HOST,
        )
        made.held = held
        return made  # type: ignore[no-any-return]

    def __init__(self, held: Tensor) -> None:
        pass

    __torch_function__ = torch._C._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        raise RuntimeError(f"{func}: the second device is gone")

    device = property(lambda self: DEVICE)  # type: ignore[assignment]
    data = property(lambda self: self.detach(), lambda self, other: self._put(other))  # type: ignore[assignment]
    is_cuda = property(lambda self: True)  # type: ignore[assignment]
    is_cpu = property(lambda self: False)  # type: ignore[assignment]

    def _put(self, other: "OnDevice") -> None:
        """Take the memory of another tensor, as ``tensor.data = other`` does; one of the host makes
        this one of the host."""
        if not isinstance(other, OnDevice):
            torch.utils.swap_tensors(self, torch.nn.Parameter(other, self.requires_grad))
            return
        assert (other.shape, other.stride()) == (self.shape, self.stride()), "of another shape"
        self.held = other.held

    def cpu(self, *arguments: Any, **options: Any) -> Tensor:
        """Seen by the modes, which are the main thread's; another thread holds up no step."""
        if threading.current_thread() is threading.main_thread():
            return super().cpu(*arguments, **options)
        return self.held.clone()

    def untyped_storage(self) -> torch.UntypedStorage:
        return self.held.untyped_storage()

    def record_stream(self, stream: object) -> None:
        """Its memory is the host's, which keeps it."""

    def __repr__(self, **options: Any) -> str:
        return f"OnDevice({self.held})"

    def __deepcopy__(self, memo: dict[int, Any]) -> "OnDevice":
        made: Any = OnDevice(self.held.clone())
        if isinstance(self, torch.nn.Parameter):
            made = torch.nn.Parameter(made, requires_grad=self.requires_grad)
        memo[id(self)] = made
        return made  # type: ignore[no-any-return]

    def __tensor_flatten__(self) -> tuple[list[str], None]:
        return ["held"], None

    @staticmethod
    def __tensor_unflatten__(inner: Any, meta: Any, size: Any, stride: Any) -> "OnDevice":
        return OnDevice(inner["held"])


@dataclass
class Seen:
    """What a GPU would have minded.

    Attributes:
        waits: of the host for the device: the operation, and the line of ptft that asked for it.
        pageable: copies that were to go on and could not, their memory not being pinned.
        calls: operations on the device.
    """

    waits: list[str] = field(default_factory=list)
    pageable: list[str] = field(default_factory=list)
    calls: int = 0

    def wait(self, what: str) -> None:
        self.waits.append(f"{what} at {where()}")


def where() -> str:
    """The innermost line of this repository outside of the second device."""
    for frame in reversed(traceback.extract_stack()):
        inside = "/ptft/" in frame.filename or "/tests/" in frame.filename
        name = Path(frame.filename).name
        if inside and "site-packages" not in frame.filename and name not in _OURS:
            return f"{frame.filename.rsplit('/', 2)[-1]}:{frame.lineno} {frame.name}"
    return "torch"


class Pinned:
    """Memory that was pinned; it is kept, so that no other comes to lie there."""

    def __init__(self) -> None:
        self._kept: dict[int, Tensor] = {}

    def add(self, tensor: Tensor) -> Tensor:
        pinned = tensor.clone()
        self._kept[pinned.untyped_storage().data_ptr()] = pinned
        return pinned

    def __contains__(self, tensor: Tensor) -> bool:
        return tensor.untyped_storage().data_ptr() in self._kept


class Random:
    """The device's random numbers."""

    def __init__(self) -> None:
        self.state = torch.get_rng_state()

    def seed(self, seed: int) -> None:
        self.state = torch.Generator().manual_seed(seed).get_state()

    def get(self, device: object = None) -> Tensor:
        return self.state.clone()

    def set(self, state: Tensor, device: object = None) -> None:
        self.state = state.clone()

    @contextlib.contextmanager
    def drawn(self) -> Iterator[None]:
        """Inside, the CPU's kernels draw from the device's generator."""
        own = torch.get_rng_state()
        torch.set_rng_state(self.state)
        try:
            yield
        finally:
            self.state = torch.get_rng_state()
            torch.set_rng_state(own)


def held(value: Any) -> Any:
    return value.held if isinstance(value, OnDevice) else value
