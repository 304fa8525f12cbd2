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
from ptft.artifact import GoldenKeys, ModelInfo
from ptft.errors import ArtifactError
from ptft.files.bounds import Bounds, parse_json
from ptft.files.digests import record_check, was_checked
from ptft.onnx.limits import PATIENCE, Limits, limits_of

__all__ = ["BATCH", "try_model"]

BATCH = 16
"""Images or texts at once, unless the service is told of more (``PTFT_MICRO_BATCH``)."""


def try_model(
    folder: Path, info: ModelInfo, precision: str, *, batch: int = BATCH, remember: bool = True
) -> dict[str, float] | None:
    """Load a model, embed its golden inputs, the largest batch and the longest texts, elsewhere.

    A process that is a worker of its own may as well bound itself and load it once: see
    :class:`ptft.onnx.limits.Limits`.

    Args:
        folder: a model folder whose bytes are those that ``info`` records.
        info: its ``ptft.json``.
        precision: of :data:`ptft.artifact.PRECISIONS`.
        batch: images or texts that run at once.
        remember: take it from the last time, where the very same model came through.

    Returns:
        How far the golden inputs' answers lie from the recorded ones, see
        :func:`ptft.onnx.golden.differences`; None where it was not run again.

    Raises:
        ArtifactError: it did not come through, and why.
    """
    key = f"{info.digest} {precision} {batch} {__version__}"
    if remember and was_checked("tried", key):
        return None
    limits = limits_of(info)
    words = [str(folder.absolute()), precision, str(batch), str(limits.seconds), str(limits.memory)]
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
            timeout=2
            * PATIENCE
            * limits.seconds,  # its own clock rings before, unless it is stopped
        )
    except subprocess.TimeoutExpired:
        raise ArtifactError(f"{folder}: running it once did not end; {limits}") from None
    if done.returncode == 0:
        record_check("tried", key)
        return _differences(done.stdout, folder)
    if done.returncode == 3 and done.stderr.strip():  # an error that ptft knows; see trial_run
        raise ArtifactError(done.stderr.strip().splitlines()[-1])
    raise ArtifactError(f"{folder}: {_why(done, limits)}")


def _differences(said: str, folder: Path) -> dict[str, float]:
    """What the process says last. It ran somebody else's model, so that it is held as well."""
    lines = said.splitlines() or [""]
    found = Bounds(parse_json(lines[-1], folder, error=ArtifactError), f"{folder}: its first run")
    embeds = (GoldenKeys.IMAGE_EMBEDS, GoldenKeys.TEXT_EMBEDS)
    answers = (GoldenKeys.CLASS_LOGITS, GoldenKeys.DETECT_LOGITS, GoldenKeys.DETECT_BOXES)
    found.keys((*embeds, *answers))
    for key, value in found.values.items():
        if not isinstance(value, float):
            found.refuse(key, value, "a number")
    return found.values


def _why(done: subprocess.CompletedProcess[str], limits: Limits) -> str:
    lines = done.stderr.strip().splitlines() or ["it said nothing"]
    if done.returncode in (-signal.SIGXCPU, -signal.SIGALRM, -signal.SIGKILL):
        return f"running it once took too long or was ended by the system; {limits}"
    if done.returncode < 0:
        return f"running it once ended the process (signal {-done.returncode}); {limits}"
    return f"running it once failed: {lines[-1][:300]}; {limits}"
