"""How a device computes a step: number format, compiled blocks, threads, memory, random numbers.

bf16 is slower than fp32 on CPUs without matrix units for it (0.64x was seen), and much faster on
GPUs that have them, so a precision of ``auto`` times both on the recipe's own model.

``torch.compile`` takes a block at a time, since the blocks of a tower are alike: one is compiled
and the others take its code. A whole tower takes minutes (on a CPU over 400 s were seen), and
changes of its surroundings (a shorter text, fewer patches) would compile all of it anew.

Memory that a step frees is kept for the next one. glibc hands large blocks back to the kernel and
asks for them anew, and the kernel clears each page again: a gradient of every weight and most
activations, every step. With a small batch that is a fifth of a step on a CPU. Peak memory is the
same.

How many threads share a sum decides its last bits: a library that left their count changed would
change the figures of whatever its caller computes next.
"""

import contextlib
import ctypes
import importlib.util
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from statistics import median
from typing import Literal, Self

import torch
from torch import Tensor, nn

from ptft.errors import TrainingError
from ptft.model import DualEncoder, tower_blocks

__all__ = [
    "AUTO_FROM",
    "RandomState",
    "autocast",
    "compile_blocks",
    "cpu_threads",
    "keep_freed_memory",
    "measure_precision",
    "uncompiled",
    "wants_compiling",
    "why_no_compiler",
]

_CLEARLY_FASTER = 1.2  # a choice that noise could flip would make runs differ for nothing
_ROUNDS = 3  # of each format, in turn


def autocast(precision: str, device: torch.device) -> contextlib.AbstractContextManager:
    """The context that the towers run in; fp32 is the plain one."""
    if precision == "fp32":
        return contextlib.nullcontext()
    dtype = torch.bfloat16 if precision == "bf16" else torch.float16
    return torch.autocast(device.type, dtype=dtype)


def measure_precision(steps: Mapping[str, Callable[[], object]], device: torch.device) -> str:
    """``bf16`` where a forward and backward pass is clearly faster in it than in fp32.

    Args:
        steps: for ``fp32`` and ``bf16``, what runs such a pass of one batch.
    """
    if device.type == "cuda" and not torch.cuda.is_bf16_supported():
        return "fp32"
    # On a CPU that others use too, CPU seconds compare and wall seconds do not.
    clock = time.perf_counter if device.type == "cuda" else time.process_time
    seconds: dict[str, list[float]] = {precision: [] for precision in steps}
    for round_ in range(_ROUNDS + 1):
        for precision, times in seconds.items():
            start = clock()
            steps[precision]()
            if device.type == "cuda":
                torch.cuda.synchronize()
            if round_:  # the first is a warm-up
                times.append(clock() - start)
    faster = median(seconds["fp32"]) / median(seconds["bf16"])
    return "bf16" if faster > _CLEARLY_FASTER else "fp32"


AUTO_FROM = 1000  # steps of a run: compiling takes about a minute, which fewer would not win back

_MOST_KINDS = 4  # of blocks in a tower: the stages of a Swin or ConvNeXt; dynamo gives up after 8


def wants_compiling(wanted: Literal["auto", "on", "off"], device: torch.device, steps: int) -> bool:
    """What ``run.compile`` means for a run of ``steps`` on ``device``.

    ``auto`` is a function of the recipe and the machine alone, so that a resumed run decides as it
    did before.

    Raises:
        TrainingError: ``on`` where there is no compiler.
    """
    match wanted:
        case "off":
            return False
        case "auto":
            return device.type == "cuda" and why_no_compiler(device) is None and steps >= AUTO_FROM
        case "on":
            missing = why_no_compiler(device)
            if missing is not None:
                raise TrainingError(f"run.compile: 'on': {missing}; allowed: auto, off")
    return True


def compile_blocks(model: DualEncoder, *, backend: str = "inductor") -> str:
    """Compile the blocks of both towers, in place; the names of the weights stay.

    Dropout draws as it does without compiling, so that the two passes of GradCache agree and a run
    with and without are the same but for rounding.

    A tower is left alone where its blocks are not alike (a ResNet's, an EfficientNet's): each would
    be compiled by itself. So is one with DoRA, whose layers peft asks for the module of their
    weights' class (``dequantize_module_weight``): the compiler stops at each, and makes a function
    of what lies between them.

    Returns:
        What was compiled, for people.
    """
    options: dict[str, str | int | bool | object] | None = None
    if backend == "inductor":
        options = {"fallback_random": True}
    counts, passed_over = {}, ""
    for side in ("image", "text"):
        blocks = tower_blocks(model.get_submodule(side))
        if any(_stops_the_compiler(block) for block in blocks):
            passed_over = "; DoRA's layers are left as they are"
        elif 0 < len({_kind(block) for block in blocks}) <= _MOST_KINDS:
            for block in blocks:
                block.compile(backend=backend, options=options)
            counts[side] = len(blocks)
    parts = ", ".join(f"{count} blocks of the {side} tower" for side, count in counts.items())
    return (
        f"compiled: {parts or 'nothing; no tower is a stack of blocks that are alike'}{passed_over}"
    )


@contextlib.contextmanager
def uncompiled(model: nn.Module) -> Iterator[None]:
    """Inside, compiled blocks run as they are, as they will after training: an evaluation compiles
    nothing for its own sizes, and measures what :mod:`ptft.evaluate` would on the saved model."""
    if any(part._compiled_call_impl is not None for part in model.modules()):
        with torch.compiler.set_stance("force_eager"):
            yield
    else:
        yield


def _stops_the_compiler(block: nn.Module) -> bool:
    """Whether a layer of it is DoRA's; other kinds of peft's layers have an empty dictionary."""
    return any(getattr(part, "lora_magnitude_vector", None) for part in block.modules())


def _kind(block: nn.Module) -> tuple:
    """What makes two blocks take one compiled function."""
    return type(block), tuple(tensor.shape for tensor in block.parameters())


def why_no_compiler(device: torch.device) -> str | None:
    """What compiling for a device needs and this machine lacks."""
    if device.type == "cuda":
        return None if importlib.util.find_spec("triton") else "triton is not installed"
    from torch._inductor import config

    compilers = config.cpp.cxx if isinstance(config.cpp.cxx, tuple) else (config.cpp.cxx,)
    if any(name and shutil.which(name) for name in compilers):
        return None
    return "there is no C++ compiler on this machine (g++)"


_TRIM_THRESHOLD, _MMAP_MAX = -1, -4  # of mallopt(3)
_NEVER = 2**31 - 1


def keep_freed_memory() -> bool:
    """Tell this process's allocator; whether it took it. Another than glibc's is left alone."""
    if sys.platform != "linux":
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return mallopt is not None and bool(mallopt(_TRIM_THRESHOLD, _NEVER) and mallopt(_MMAP_MAX, 0))


@contextlib.contextmanager
def cpu_threads(count: int | None) -> Iterator[None]:
    """So many of torch's CPU threads inside, and the caller's own count again after it; None leaves
    the count as it is."""
    before = torch.get_num_threads()
    if count is not None:
        torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@dataclass(frozen=True)
class RandomState:
    """Where torch's random numbers stand, on the CPU and on a GPU."""

    cpu: Tensor
    cuda: Tensor | None

    @classmethod
    def now(cls, device: torch.device) -> Self:
        """As it stands."""
        cuda = torch.cuda.get_rng_state(device) if device.type == "cuda" else None
        return cls(torch.get_rng_state(), cuda)

    def restore(self, device: torch.device) -> None:
        """Put it back."""
        torch.set_rng_state(self.cpu)
        if self.cuda is not None:
            torch.cuda.set_rng_state(self.cuda, device)
