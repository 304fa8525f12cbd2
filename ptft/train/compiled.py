"""torch.compile of a model's blocks, one compiled function for all blocks of a tower.

A block at a time, since the blocks of a tower are alike: one is compiled and the others take its
code. A whole tower takes minutes (on a CPU over 400 s were seen), and changes of its surroundings
(a shorter text, fewer patches) would compile all of it anew.
"""

import contextlib
import importlib.util
import shutil
from collections.abc import Iterator
from typing import Literal

import torch
from torch import nn

from ptft.errors import TrainingError
from ptft.model import DualEncoder, tower_blocks

__all__ = ["AUTO_FROM", "compile_blocks", "uncompiled", "wants_compiling", "why_no_compiler"]

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
    be compiled by itself.

    Returns:
        What was compiled, for people.
    """
    options: dict[str, str | int | bool | object] | None = None
    if backend == "inductor":
        options = {"fallback_random": True}
    counts = {}
    for side in ("image", "text"):
        blocks = tower_blocks(model.get_submodule(side))
        if 0 < len({_kind(block) for block in blocks}) <= _MOST_KINDS:
            for block in blocks:
                block.compile(backend=backend, options=options)
            counts[side] = len(blocks)
    parts = ", ".join(f"{count} blocks of the {side} tower" for side, count in counts.items())
    return f"compiled: {parts or 'nothing; no tower is a stack of blocks that are alike'}"


@contextlib.contextmanager
def uncompiled(model: nn.Module) -> Iterator[None]:
    """Inside, compiled blocks run as they are, as they will after training: an evaluation compiles
    nothing for its own sizes, and measures what :mod:`ptft.evaluate` would on the saved model."""
    if any(part._compiled_call_impl is not None for part in model.modules()):
        with torch.compiler.set_stance("force_eager"):
            yield
    else:
        yield


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
