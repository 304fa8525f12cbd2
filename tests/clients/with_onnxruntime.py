"""onnxruntime and the ``tokenizers`` library alone; pictures where the folder prepares them."""

from pathlib import Path

import numpy as np
import onnxruntime
from huggingface_hub import snapshot_download
from run import Embeddings, Task
from tokenizers import Tokenizer


def embed(task: Task) -> Embeddings:
    folder = snapshot_download(task.repo, allow_patterns=["onnx/*", "tokenizer.json"])
    sessions = {
        name: onnxruntime.InferenceSession(f"{folder}/onnx/{name}_model.onnx")
        for name in ("text", "vision")
    }
    tokenizer = Tokenizer.from_file(f"{folder}/tokenizer.json")
    length = task.tokens["input_ids"].shape[1]
    tokenizer.enable_truncation(length)
    ids = np.full((len(task.captions), length), task.options["pad_id"], np.int64)
    for row, found in zip(ids, tokenizer.encode_batch(task.captions), strict=True):
        row[: len(found.ids)] = found.ids
    (images,) = sessions["vision"].run(None, {"pixel_values": task.pixel_values})
    (same,) = sessions["text"].run(None, {"input_ids": task.tokens["input_ids"]})
    (texts,) = sessions["text"].run(None, {"input_ids": ids})
    found = {"same_image": images, "same_text": same, "text": texts}
    preprocess = Path(folder, "onnx", "preprocess.onnx")
    if preprocess.is_file():
        session = onnxruntime.InferenceSession(str(preprocess))
        rows = [session.run(None, {"image": np.asarray(one)})[0] for one in task.pictures]
        (found["image"],) = sessions["vision"].run(None, {"pixel_values": np.concatenate(rows)})
    return found
