"""Which number format the towers run in: by recipe, or by measuring on this machine.

bf16 is slower than fp32 on CPUs without matrix units for it (0.64x was seen), and much faster on
GPUs that have them, so ``auto`` times both on the recipe's own model.
"""

import contextlib
import time
from collections.abc import Callable, Mapping
from statistics import median

import torch

__all__ = ["autocast", "measure_precision"]

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
