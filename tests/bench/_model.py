"""The model of the peers: the folder's card has these lines, under "onnxruntime"."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from PIL import Image

from ptft.preprocess import ImagePreprocess

__all__ = ["Model"]


class Model:
    """Pictures as Pillow opens them to embeddings of length 1, on one thread."""

    def __init__(self, folder: Path) -> None:
        info = json.loads((folder / "ptft.json").read_text())
        self.preprocess = ImagePreprocess.from_config(info["preprocess"])
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self.vision = onnxruntime.InferenceSession(folder / "onnx" / "vision_model.onnx", options)

    def pixels(self, image: Image.Image) -> np.ndarray:
        return self.preprocess(image)

    def embed(self, pixels: Any) -> np.ndarray:
        rows = self.vision.run(None, {"pixel_values": np.asarray(pixels)})[0]
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)
