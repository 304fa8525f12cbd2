"""``python -P -m ptft.onnx.trial_run FOLDER PRECISION BATCH SECONDS BYTES``.

The process that :mod:`ptft.onnx.trial` starts.

Exit code 3: the model is not as it should be, and the last line on stderr says how.
"""

import sys
from pathlib import Path

import numpy as np

from ptft.artifact import read_model_info
from ptft.errors import ArtifactError, PtftError
from ptft.onnx.golden import read_golden, run_onnx
from ptft.onnx.model import OnnxModel
from ptft.onnx.provider import Provider

__all__ = ["main"]

_LONGEST = 32_768  # characters of a text that the service takes (serving.schema.MAX_TEXT)
_PIECES = (
    "a",
    "a ",
    " ",
    "\u00e9",
    "\ufdfa",
    "1",
    "!?",
    "<",
    "&amp;",
    "\n",
    "\u4e2d",
    "\U0001f600",
    "Ab1_",
)


def main(folder: Path, precision: str, batch: int) -> None:
    """Load the model and run what costs most. Raises what is wrong with it."""
    info = read_model_info(folder)
    model = OnnxModel(folder, info, precision, 1, Provider("cpu"))
    height, width = info.image_size
    noise = np.random.default_rng(0).normal(size=(3, height, width)).astype(np.float32)
    model.encode_images([noise] * batch)
    texts = [(piece * _LONGEST)[:_LONGEST] for piece in _PIECES]
    tokens = model.tokenizer([*texts, "".join(_PIECES) * 100])
    full = tokens[np.argmax(model.tokenizer.lengths(tokens))]
    model.encode_texts([full] * batch)
    run_onnx(model, read_golden(folder))


def _bound(seconds: int, memory: int) -> None:
    """Bound this process. Raises ArtifactError where the system has no such bounds (Windows)."""
    try:
        import resource
    except ImportError:
        raise ArtifactError(
            "this system bounds no process's memory, so a model of somebody else's is not run on it"
        ) from None
    for kind, most in ((resource.RLIMIT_CPU, seconds), (resource.RLIMIT_AS, memory)):
        _, hard = resource.getrlimit(kind)
        most = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(kind, (most, hard))
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))


if __name__ == "__main__":
    try:
        _bound(int(sys.argv[4]), int(sys.argv[5]))
        main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
    except PtftError as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(3)
    except MemoryError:
        sys.stderr.write("it takes more memory than is allowed\n")
        sys.exit(1)
