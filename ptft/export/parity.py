"""Whether an exported file gives the outputs of the model it came from: measured, always."""

import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from ptft.errors import ExportError, ParityError
from ptft.onnx.golden import TOLERANCE

__all__ = ["Parity", "compare_embeddings", "measure_parity", "run_apart"]


@dataclass(frozen=True)
class Parity:
    """How far a file's outputs are from the model's, over all batches that were run.

    Attributes:
        max_abs: largest absolute difference of an entry of the L2-normalised embeddings.
        max_abs_raw: the same of the embeddings as they come out.
        min_cosine: smallest cosine of a pair of embeddings.
        shapes: of the inputs that were run, ``2x12``.
        bytes: size of the file, external weights included.
        change: of each figure of the recipe's evaluations, the file's minus the checkpoint's, as
            shares of 1; empty where none was measured.
        lost: see :class:`ptft.export.quality.Change`; None where nothing was measured.
    """

    max_abs: float
    max_abs_raw: float
    min_cosine: float
    shapes: list[str]
    bytes: int
    change: dict[str, float] = field(default_factory=dict)
    lost: float | None = None


def measure_parity(
    path: Path,
    batches: Mapping[str, NDArray[np.generic]],
    expected: Mapping[str, NDArray[np.float32]],
    *,
    tolerance: float = TOLERANCE["fp32"],
) -> Parity:
    """Run a file in a fresh process and hold its outputs against the model's.

    Args:
        path: the ONNX file.
        batches: name -> input. Several sizes, so that an axis that is fixed inside shows.
        expected: name -> the model's output, (B, D) un-normalised.

    Raises:
        ExportError: onnxruntime cannot load or run the file.
        ParityError: the outputs differ by more than ``tolerance``.
    """
    outputs = run_apart(path, batches)
    results = [
        compare_embeddings(outputs[name], expected[name], f"{path.name} {name}") for name in batches
    ]
    weights = path.with_name(path.name + "_data")
    parity = Parity(
        max_abs=max(result[0] for result in results),
        max_abs_raw=max(result[1] for result in results),
        min_cosine=min(result[2] for result in results),
        shapes=["x".join(map(str, batch.shape)) for batch in batches.values()],
        bytes=path.stat().st_size + (weights.stat().st_size if weights.is_file() else 0),
    )
    if not parity.max_abs <= tolerance:  # NaN is beyond it too
        raise ParityError(
            f"{path.name}: normalised embeddings differ from torch's by {parity.max_abs:.2e} "
            f"(cosine {parity.min_cosine:.6f}); allowed: {tolerance:g}"
        )
    return parity


def compare_embeddings(
    found: NDArray[np.float32], expected: NDArray[np.float32], what: str
) -> tuple[float, float, float]:
    """Largest difference of normalised entries, of raw entries, and the smallest cosine.

    Raises:
        ParityError: the shapes differ.
    """
    if found.shape != expected.shape:
        raise ParityError(f"{what}: shape {found.shape}; the model gives {expected.shape}")
    a, b = found.astype(np.float64), expected.astype(np.float64)
    unit_a = a / np.linalg.norm(a, axis=1, keepdims=True)
    unit_b = b / np.linalg.norm(b, axis=1, keepdims=True)
    cosine = (unit_a * unit_b).sum(axis=1)
    return (
        float(np.abs(unit_a - unit_b).max()),
        float(np.abs(a - b).max()),
        float(cosine.min()),
    )


def run_apart(
    path: Path, batches: Mapping[str, NDArray[np.generic]]
) -> dict[str, NDArray[np.float32]]:
    """Outputs of an ONNX file for each batch, from a process of its own.

    Raises:
        ExportError: the process failed, onnxruntime's own crash at loading included.
    """
    with tempfile.TemporaryDirectory(prefix="ptft-parity-") as scratch:
        inputs, outputs = Path(scratch, "inputs"), Path(scratch, "outputs")
        save_file({name: np.ascontiguousarray(batch) for name, batch in batches.items()}, inputs)
        script = Path(__file__).with_name("session.py")
        done = subprocess.run(
            [sys.executable, "-P", script, path, inputs, outputs],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode < 0:
            raise ExportError(f"{path.name}: onnxruntime was ended by signal {-done.returncode}")
        if done.returncode > 0:
            last = (done.stderr.strip().splitlines() or ["no message"])[-1]
            raise ExportError(f"{path.name}: onnxruntime cannot run it: {last}")
        return load_file(outputs)
