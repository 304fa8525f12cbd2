"""Graphs that torch traced already, shared by the tests of one run: tracing a tiny tower takes
seconds, and dozens of tests export the same ones."""

import hashlib
import io
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnxscript
import torch
from torch.overrides import _get_current_function_mode_stack as modes

__all__ = ["remember"]

LARGEST = 1 << 26  # bytes of a module that is remembered


class Whole(pickle.Pickler):
    """Everything of a module, with the numbers of a tensor in place of where they lie."""

    def reducer_override(self, value: Any) -> Any:
        if isinstance(value, torch.Tensor):
            flat = value.detach().contiguous().reshape(-1).view(torch.uint8).numpy()
            form = f"{value.dtype} {tuple(value.shape)} {type(value)} {value.requires_grad} "
            return bytes, (form.encode() + flat.tobytes(),)
        return NotImplemented


def remember(export: Callable[..., Any], folder: Path) -> Callable[..., Any]:
    """``torch.onnx.export``, run once for all that decides what it makes.

    A module is the same if every byte of its pickle is: classes, attributes and weights. What
    cannot be pickled or is large is traced each time.
    """

    def traced(module: torch.nn.Module, inputs: Any, **settings: Any) -> Any:
        whole = io.BytesIO()
        try:
            Whole(whole).dump((module, inputs, settings, [type(mode) for mode in modes()]))
        except Exception:  # a module may hold anything
            return export(module, inputs, **settings)
        if whole.tell() > LARGEST:
            return export(module, inputs, **settings)
        path = folder / f"{hashlib.sha256(whole.getbuffer()).hexdigest()}.onnx"
        if not path.exists():
            program = export(module, inputs, **settings)
            folder.mkdir(exist_ok=True)
            part = path.with_suffix(f".{os.getpid()}")
            program.save(part)
            part.replace(path)
        return torch.onnx.ONNXProgram(onnxscript.ir.load(path), None)

    return traced
