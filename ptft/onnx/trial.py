"""A model of somebody else's, run for the first time: in a process of its own, within bounds.

What :mod:`ptft.onnx.check` and :mod:`ptft.preprocess.tokenizer_file` let through costs the same for
every input of a size. Here the largest batch that a service runs goes through the towers, and texts
as long as one takes through the tokenizer, where a kill hurts nobody. A model that came through is
remembered by its digest (:func:`ptft.files.digests.record_check`), so that the next start costs
nothing.
"""

import os
import signal
import subprocess
import sys
from pathlib import Path

from ptft import __version__
from ptft.artifact import ModelInfo
from ptft.errors import ArtifactError
from ptft.files.digests import record_check, was_checked

__all__ = ["BATCH", "PATIENCE", "cpu_seconds", "memory_bytes", "try_model"]

BATCH = 16
"""Images or texts at once, unless the service is told of more (``PTFT_MICRO_BATCH``)."""

_MEMORY, _MEMORY_EACH = 6 << 30, 4  # bytes of addresses, and more for each byte of the files
_CPU, _CPU_EACH = 120, 240  # seconds, and more for each GiB of the files
PATIENCE = 4  # times the seconds, on a machine that does other things as well


def try_model(
    folder: Path, info: ModelInfo, precision: str, *, batch: int = BATCH, remember: bool = True
) -> None:
    """Load a model, embed its golden inputs, the largest batch and the longest texts, elsewhere.

    Args:
        folder: a model folder whose bytes are those that ``info`` records.
        info: its ``ptft.json``.
        precision: of :data:`ptft.artifact.PRECISIONS`.
        batch: images or texts that run at once.
        remember: take it from the last time, where the very same model came through.

    Raises:
        ArtifactError: it did not come through, and why.
    """
    key = f"{info.digest} {precision} {batch} {__version__}"
    if remember and was_checked("tried", key):
        return
    size = sum(entry["size"] for name, entry in info.files.items() if ".onnx" in name)
    seconds, memory = cpu_seconds(size), memory_bytes(size)
    words = [str(folder.absolute()), precision, str(batch), str(seconds), str(memory)]
    one = {f"{name}_NUM_THREADS": "1" for name in ("OMP", "OPENBLAS", "MKL")}
    paths = os.pathsep.join(path for path in sys.path if path)
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-m", "ptft.onnx.trial_run", *words],
            env={**os.environ, **one, "PYTHONPATH": paths, "RAYON_NUM_THREADS": "1"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            timeout=PATIENCE * seconds,
        )
    except subprocess.TimeoutExpired:
        raise ArtifactError(
            f"{folder}: still running after {PATIENCE * seconds} s; what is allowed for its size"
        ) from None
    if done.returncode == 0:
        record_check("tried", key)
        return
    if done.returncode == 3 and done.stderr.strip():  # an error that ptft knows; see trial_run
        raise ArtifactError(done.stderr.strip().splitlines()[-1])
    raise ArtifactError(f"{folder}: {_why(done, seconds, memory)}")


def cpu_seconds(size: int) -> int:
    """Seconds of a CPU that a model of ``size`` bytes may take: 120, and 240 for each GiB."""
    return _CPU + _CPU_EACH * size // 2**30


def memory_bytes(size: int) -> int:
    """Bytes of addresses that it may take: 6 GiB, and 4 for each byte."""
    return _MEMORY + _MEMORY_EACH * size


def _why(done: subprocess.CompletedProcess[str], seconds: int, memory: int) -> str:
    lines = done.stderr.strip().splitlines() or ["it said nothing"]
    bounds = f"allowed: {seconds} s of a CPU and {memory / 2**30:.1f} GiB of addresses"
    if done.returncode in (-signal.SIGXCPU, -signal.SIGKILL):
        return f"running it once took too long or was ended by the system; {bounds}"
    if done.returncode < 0:
        return f"running it once ended the process (signal {-done.returncode}); {bounds}"
    return f"running it once failed: {lines[-1][:300]}; {bounds}"
