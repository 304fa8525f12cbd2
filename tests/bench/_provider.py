"""``python -m tests.bench._provider FOLDER PROVIDER OUT COUNT [OPTIONS]``.

Pictures and texts of a model folder on a provider of this environment's onnxruntime, one thread.
Writes their embeddings, and prints which provider ran, and CPU-ms and ms a picture, as JSON.
"""

import json
import sys
import time
from pathlib import Path

import numpy as np

from ptft.artifact import read_model_info
from ptft.errors import PtftError
from ptft.onnx.golden import check_golden
from ptft.onnx.model import OnnxModel
from ptft.onnx.provider import Provider

_BATCH = 4


def main(folder: Path, name: str, out: Path, count: int, options: list[str]) -> None:
    """Load, hold against the golden embeddings, run."""
    given = tuple((key, value) for key, _, value in (one.partition("=") for one in options))
    info = read_model_info(folder)
    model = OnnxModel(folder, info, "fp32", 1, Provider(name, given))
    check_golden(model, folder)
    height, width = info.image_size
    rng = np.random.default_rng(0)
    pictures = list(rng.normal(size=(_BATCH, 3, height, width)).astype(np.float32))
    images = model.encode_images(pictures)
    texts = model.encode_texts(list(model.tokenizer(["a photo of a cat", "a", "two dogs"])))
    used, began = time.process_time(), time.perf_counter()
    for _ in range(count):
        model.encode_images(pictures)
    each = 1e3 / (count * _BATCH)
    cpu_ms, ms = (time.process_time() - used) * each, (time.perf_counter() - began) * each
    np.save(out, np.concatenate([images, texts]))
    print(json.dumps({"provider": model.provider, "cpu_ms": cpu_ms, "ms": ms}))


if __name__ == "__main__":
    try:
        main(Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3]), int(sys.argv[4]), sys.argv[5:])
    except PtftError as error:
        sys.exit(str(error))
