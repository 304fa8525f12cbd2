"""The peer on BentoML's own API, as its documentation has it: ``bentoml serve _bento:Embed``."""

import os
from pathlib import Path

import bentoml
import numpy as np
from PIL import Image

from tests.bench._model import Model


@bentoml.service(workers=1, traffic={"timeout": 60})
class Embed:
    """Pictures to embeddings, up to 16 a batch."""

    def __init__(self) -> None:
        self.model = Model(Path(os.environ["BENCH_FOLDER"]))

    @bentoml.api(batchable=True, max_batch_size=16, max_latency_ms=10_000)
    def embed(self, images: list[Image.Image]) -> np.ndarray:
        return self.model.embed(np.stack([self.model.pixels(image) for image in images]))
