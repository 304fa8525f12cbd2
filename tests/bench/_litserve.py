"""The peer on LitServe, as its documentation has it: ``python _litserve.py FOLDER PORT``."""

import base64
import sys
from pathlib import Path
from typing import Any

import litserve as ls
import numpy as np

from ptft.artifact import read_model_info
from ptft.onnx.model import OnnxModel
from ptft.preprocess import decode_image


class Embed(ls.LitAPI):
    """Pictures in base64 to embeddings, up to 16 a batch."""

    def setup(self, device: str) -> None:
        folder = Path(sys.argv[1])
        self.model = OnnxModel(folder, read_model_info(folder), "fp32", 1)

    def decode_request(self, request: dict[str, str]) -> np.ndarray:
        data = base64.b64decode(request["image"])
        return self.model.preprocess(decode_image(data, name="image"))

    def predict(self, batch: Any) -> np.ndarray:
        return self.model.encode_images(list(batch))

    def encode_response(self, output: np.ndarray) -> dict[str, list[float]]:
        return {"embedding": output.tolist()}


if __name__ == "__main__":
    server = ls.LitServer(Embed(max_batch_size=16, batch_timeout=0.01), accelerator="cpu")
    server.run(host="127.0.0.1", port=int(sys.argv[2]), generate_client_file=False)
