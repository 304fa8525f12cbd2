"""The golden embeddings of a model folder: what this process must give before it may serve.

Digests show that the bytes are the right ones. Golden embeddings show that this onnxruntime, on
this machine, makes of them what the checkpoint did.
"""

import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import safe_open

from ptft.artifact import FolderFiles, GoldenKeys
from ptft.errors import ArtifactError
from serving.model import Model

__all__ = ["TOLERANCE", "check_golden"]

TOLERANCE = {"fp32": 1e-4, "fp16": 1e-2, "int8": 0.15}
"""Largest difference of an entry of an L2-normalised embedding, by precision.

fp32 is the exporter's own bound. The others only catch what is broken: how much of the model's
quality a precision costs is measured when it is exported.
"""


def check_golden(model: Model, folder: Path) -> None:
    """Encode the golden inputs and compare.

    Raises:
        ArtifactError: the file is absent, or an output is not the recorded one.
    """
    path = folder / FolderFiles.GOLDEN
    if not path.is_file():
        raise ArtifactError(f"{path}: missing; without it nothing shows that the model works here")
    with safe_open(path, "numpy") as file:
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (not a dict)
        texts = json.loads(file.metadata()[GoldenKeys.TEXTS])
    tokens = model.tokenizer(texts)
    if not np.array_equal(tokens, tensors[GoldenKeys.TOKENS]):
        row = int(np.flatnonzero((tokens != tensors[GoldenKeys.TOKENS]).any(axis=1))[0])
        raise ArtifactError(f"{path}: text {row} ({texts[row]:.40}) has other tokens here")
    images = model.encode_images(list(model.preprocess.normalise(tensors[GoldenKeys.PIXELS])))
    found = {
        GoldenKeys.IMAGE_EMBEDS: images,
        GoldenKeys.TEXT_EMBEDS: model.encode_texts(list(tokens)),
    }
    for key, rows in found.items():
        _compare(path, key, rows, tensors[key], TOLERANCE[model.precision])
    if model.has_head and (logits := tensors.get(GoldenKeys.CLASS_LOGITS)) is not None:
        wanted = np.exp(logits - logits.max(axis=1, keepdims=True))
        wanted /= wanted.sum(axis=1, keepdims=True)
        # a logit scale of 100 turns a difference of 1e-4 in an embedding into one of 1e-2
        difference = float(np.abs(model.head_probabilities(images) - wanted).max())
        if not difference <= 100 * TOLERANCE[model.precision]:
            raise ArtifactError(f"{path}: class probabilities differ by {difference:.2e}")


def _compare(
    path: Path, key: str, rows: NDArray[np.float32], raw: NDArray[np.float32], tolerance: float
) -> None:
    wanted = raw / np.linalg.norm(raw, axis=1, keepdims=True)
    if rows.shape != wanted.shape:
        raise ArtifactError(f"{path}: {key} has shape {wanted.shape}; the model gives {rows.shape}")
    difference = float(np.abs(rows - wanted).max())
    if not difference <= tolerance:  # NaN is beyond it too
        raise ArtifactError(
            f"{path}: {key} differs by {difference:.2e} from what the checkpoint gave; "
            f"allowed: {tolerance:g}"
        )
