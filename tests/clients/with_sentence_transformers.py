"""sentence-transformers: pictures and captions to its ``encode``, tensors to its ``forward``."""

import torch
from run import Embeddings, Task
from sentence_transformers import SentenceTransformer


def embed(task: Task) -> Embeddings:
    model = SentenceTransformer(task.repo, device="cpu").eval()
    tokens = {name: torch.from_numpy(rows) for name, rows in task.tokens.items()}
    image = {"pixel_values": torch.from_numpy(task.pixel_values), "modality": "image"}
    return {
        "same_image": model(image)["sentence_embedding"].numpy(),
        "same_text": model({**tokens, "modality": "text"})["sentence_embedding"].numpy(),
        "image": model.encode(task.pictures),
        "text": model.encode(task.captions),
    }
