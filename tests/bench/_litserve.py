"""The peer on LitServe, as its documentation has it: ``python _litserve.py FOLDER PORT``."""

import base64
import io
import sys
from pathlib import Path

import litserve as ls
import numpy as np
from PIL import Image

from tests.bench._model import Model


class Embed(ls.LitAPI):
    """Pictures in base64 to embeddings, up to 16 a batch; LitServe stacks the arrays."""

    def setup(self, device: str) -> None:
        self.model = Model(Path(sys.argv[1]))

    def decode_request(self, request: dict[str, str]) -> np.ndarray:
        return self.model.pixels(Image.open(io.BytesIO(base64.b64decode(request["image"]))))

    def predict(self, batch: np.ndarray) -> np.ndarray:
        return self.model.embed(batch)

    def encode_response(self, output: np.ndarray) -> dict[str, list[float]]:
        return {"embedding": output.tolist()}


if __name__ == "__main__":
    server = ls.LitServer(Embed(max_batch_size=16, batch_timeout=0.01), accelerator="cpu")
    server.run(host="127.0.0.1", port=int(sys.argv[2]), generate_client_file=False)
