"""``python -P -m ptft.onnx.trial_run FOLDER PRECISION BATCH SECONDS BYTES``.

The process that :mod:`ptft.onnx.trial` starts.

Exit code 0: the last line on stdout is a JSON object of how far the golden inputs' answers lie from
the recorded ones. 3: the model is not as it should be, and the last line on stderr says how.
"""

import json
import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ptft.artifact import read_model_info
from ptft.errors import PtftError
from ptft.onnx.golden import read_golden, run_onnx
from ptft.onnx.limits import Limits
from ptft.onnx.model import OnnxModel
from ptft.onnx.provider import Provider
from ptft.preprocess import TextTokenizer
from ptft.preprocess.texts import LONGEST

__all__ = ["longest_row", "main"]

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


def main(folder: Path, precision: str, batch: int) -> dict[str, float]:
    """Load the model and run what costs most; what :func:`ptft.onnx.golden.differences` says.
    Raises what is wrong with it."""
    info = read_model_info(folder)
    model = OnnxModel(folder, info, precision, 1, Provider("cpu"))
    height, width = info.image_size
    noise = np.random.default_rng(0).normal(size=(3, height, width)).astype(np.float32)
    model.encode_images([noise] * batch)
    if model.has_detector:
        model.detect_places([noise] * batch)
    model.encode_texts([longest_row(model.tokenizer)] * batch)
    return run_onnx(model, read_golden(folder))


def longest_row(tokenizer: TextTokenizer) -> NDArray[np.int64]:
    """Tokens (L,) of the longest of texts that cost a tokenizer most, each of letters, gaps, marks
    or scripts of one kind, and one of all; the cleaning, which is not the model's, left out.

    Of one kind a quarter of the longest text will do: an expression whose time grows with the cube
    of the length takes minutes then, and one of the square takes moments with all of it.
    """
    texts = [(piece * LONGEST)[: LONGEST // 4] for piece in _PIECES]
    texts.append(("".join(_PIECES) * LONGEST)[:LONGEST])
    tokens = tokenizer.uncleaned(texts)
    return tokens[np.argmax(tokenizer.lengths(tokens))]


if __name__ == "__main__":
    try:
        with Limits(int(sys.argv[4]), int(sys.argv[5])).held(sys.argv[1]):
            found = main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
    except PtftError as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(3)
    sys.stdout.write(json.dumps(found))
