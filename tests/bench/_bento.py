"""The peer on BentoML's own API, as its documentation has it: ``bentoml serve _bento:Embed``."""

import os
from pathlib import Path

import bentoml
import numpy as np
from PIL import Image

from ptft.artifact import read_model_info
from ptft.onnx.model import OnnxModel


@bentoml.service(workers=1, traffic={"timeout": 60})
class Embed:
    """Pictures to embeddings, up to 16 a batch."""

    def __init__(self) -> None:
        folder = Path(os.environ["BENCH_FOLDER"])
        self.model = OnnxModel(folder, read_model_info(folder), "fp32", 1)

    @bentoml.api(batchable=True, max_batch_size=16, max_latency_ms=10_000)
    def embed(self, images: list[Image.Image]) -> np.ndarray:
        pixels = [self.model.preprocess(image.convert("RGB")) for image in images]
        return self.model.encode_images(pixels)
