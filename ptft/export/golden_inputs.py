"""Golden embeddings: a few inputs and what the checkpoint itself made of them.

Every later stage (a pulled folder, a service) is held against them. The pictures are scenes drawn
from a fixed seed, none of the user's, so that they can be published with any model; the texts are
the ones that tokenizers get wrong.
"""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import save_file
from torch import Tensor

from ptft.artifact import GoldenKeys
from ptft.data.sources.scenes import Scenes
from ptft.evaluate.embed import evaluating
from ptft.model import DualEncoder
from ptft.onnx.golden import Golden
from ptft.preprocess import ImagePreprocess
from ptft.recipe import TOWERS_OF, ScenesData

__all__ = ["TEXTS", "embed_golden", "golden_pictures", "make_golden", "save_golden"]

TEXTS = (
    "a photo of a cat",
    "a small striped red circle to the left of a large plain blue square",
    "",
    "caf&eacute; &amp; cr&egrave;me, 3 &lt; 4",
    "two 🐈‍⬛ on a 红色 mat, naïve façade",
    "Don't SHOUT:   it's   the 1st_of_May!",
    "a very long sentence that does not end, " * 24,
)


def golden_pictures(preprocess: ImagePreprocess) -> NDArray[np.uint8]:
    """Four scenes at the model's size, two shaded and two drawn with lines: uint8 (4, H, W, 3)."""
    side = min(max(*preprocess.size, 32), 512)
    pictures = []
    for style in ("shaded", "line"):
        scenes = Scenes(ScenesData(style=style, size=side, test=2), "test")
        pictures += [preprocess.pixels(scenes[index].image) for index in range(2)]
    return np.stack(pictures)


def make_golden(model: DualEncoder) -> Golden:
    """Embed the golden pictures and texts with the model as it is."""
    pixels = golden_pictures(model.spec.preprocess)
    return embed_golden(model, pixels, TEXTS)


@torch.no_grad()
def embed_golden(model: DualEncoder, pixels: NDArray[np.uint8], texts: Sequence[str]) -> Golden:
    """What the model makes of pictures (N, H, W, 3) and T texts."""
    tokens = model.spec.tokenizer(texts)
    images = torch.from_numpy(model.spec.preprocess.normalise(pixels)).to(model.device)
    ids = torch.from_numpy(tokens).to(model.device)
    with evaluating(model):
        return Golden(
            pixels=pixels,
            texts=texts,
            tokens=tokens,
            image_embeds=model.encode_image(images).float().cpu().numpy(),
            text_embeds=model.encode_text(ids).float().cpu().numpy(),
            class_logits=None if model.head is None else _class_logits(model, images, ids),
        )


def _class_logits(model: DualEncoder, images: Tensor, tokens: Tensor) -> NDArray[np.float32]:
    towers = TOWERS_OF[model.spec.reads]
    count = min(len({"image": images, "text": tokens}[tower]) for tower in towers)
    logits_nc = model.classify(
        images[:count] if "image" in towers else None, tokens[:count] if "text" in towers else None
    )
    return logits_nc.cpu().numpy()


def save_golden(golden: Golden, path: Path) -> None:
    """Write the tensors by :class:`ptft.artifact.GoldenKeys`."""
    tensors: dict[str, NDArray] = {
        GoldenKeys.PIXELS: golden.pixels,
        GoldenKeys.TOKENS: golden.tokens,
        GoldenKeys.IMAGE_EMBEDS: golden.image_embeds,
        GoldenKeys.TEXT_EMBEDS: golden.text_embeds,
    }
    if golden.class_logits is not None:
        tensors[GoldenKeys.CLASS_LOGITS] = golden.class_logits
    # One key of metadata only: safetensors writes several in no fixed order, which would change
    # the folder's digest from one export to the next.
    metadata = {GoldenKeys.TEXTS: json.dumps(golden.texts)}
    plain = {name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}
    save_file(plain, path, metadata=metadata)
