"""Golden embeddings: read, and hold what somebody else made of the same inputs against them.

Written by :mod:`ptft.export.golden`; read by the service at its start and by ``ptft verify``.
Letters in shapes: N pictures, T texts, D width of the embeddings, C classes.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from ptft.artifact import FolderFiles, GoldenKeys
from ptft.errors import ArtifactError

__all__ = ["TOLERANCE", "Golden", "difference", "probabilities", "read_golden"]

TOLERANCE = {"fp32": 1e-4, "fp16": 1e-2, "int8": 0.15}
"""Largest difference of an entry of an L2-normalised embedding, by precision.

fp32 is the exporter's own bound. The others only catch what is broken: how much of the model's
quality a precision costs is measured when it is exported.
"""


@dataclass(frozen=True)
class Golden:
    """What :data:`ptft.artifact.FolderFiles.GOLDEN` holds.

    Attributes:
        pixels: uint8 (N, H, W, 3).
        texts: the T texts.
        tokens: int64 (T, L), L the context length.
        image_embeds: float32 (N, D), not normalised.
        text_embeds: float32 (T, D), not normalised.
        class_logits: float32 (N, C), or None without a head.
    """

    pixels: NDArray[np.uint8]
    texts: Sequence[str]
    tokens: NDArray[np.int64]
    image_embeds: NDArray[np.float32]
    text_embeds: NDArray[np.float32]
    class_logits: NDArray[np.float32] | None

    def check_tokens(self, tokens: NDArray[np.int64]) -> None:
        """Hold the tokens of ``texts`` against the recorded ones.

        Raises:
            ArtifactError: naming the first text whose tokens differ.
        """
        if tokens.shape != self.tokens.shape:
            raise ArtifactError(f"tokens are {tokens.shape}; recorded: {self.tokens.shape}")
        rows = np.flatnonzero((tokens != self.tokens).any(axis=1))
        if rows.size:
            text = self.texts[rows[0]]
            raise ArtifactError(f"text {rows[0]} ({text:.40}) has other tokens here")


def read_golden(folder: Path) -> Golden:
    """The golden embeddings of a model folder.

    Raises:
        ArtifactError: the file is absent or damaged, or lacks a tensor.
    """
    path = folder / FolderFiles.GOLDEN
    if not path.is_file():
        raise ArtifactError(f"{path}: missing; without it nothing shows that the model works here")
    try:
        with safe_open(path, "numpy") as file:
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (not a dict)
            texts = json.loads(file.metadata()[GoldenKeys.TEXTS])
        return Golden(
            pixels=tensors[GoldenKeys.PIXELS],
            texts=texts,
            tokens=tensors[GoldenKeys.TOKENS],
            image_embeds=tensors[GoldenKeys.IMAGE_EMBEDS],
            text_embeds=tensors[GoldenKeys.TEXT_EMBEDS],
            class_logits=tensors.get(GoldenKeys.CLASS_LOGITS),
        )
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise ArtifactError(f"{path}: damaged: {error}") from None


def difference(found: NDArray[np.float32], raw: NDArray[np.float32], what: str) -> float:
    """Largest difference of an entry of L2-normalised embeddings; NaN where one is NaN.

    Args:
        found: (N, D), normalised.
        raw: as recorded.
        what: is compared, for the message.

    Raises:
        ArtifactError: the shapes differ.
    """
    if found.shape != raw.shape:
        raise ArtifactError(f"{what}: shape {found.shape}; recorded: {raw.shape}")
    wanted = raw / np.linalg.norm(raw, axis=1, keepdims=True)
    return float(np.abs(found - wanted).max())


def probabilities(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """(N, C) logits to probabilities: the softmax of each row."""
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    return exponentials / exponentials.sum(axis=1, keepdims=True)
