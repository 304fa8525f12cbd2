"""What a model makes of a few fixed inputs: the evidence that two forms of it are the same."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ptft.errors import AdaptError
from ptft.model.encoder import DualEncoder

__all__ = [
    "MERGE_TOLERANCE",
    "Reference",
    "check_merged",
    "compare_outputs",
    "reference_inputs",
    "reference_outputs",
]

MERGE_TOLERANCE = 1e-5
"""Largest difference of an entry of an L2-normalised embedding between two forms of one model.

Sums in another order leave 1e-7 to 1e-6 in float32; a part that is lost leaves 1e-3 and more.
"""
_TEXTS = ("a photo of a cat", "two red circles to the left of a small green square", "")


@dataclass(frozen=True)
class Reference:
    """L2-normalised embeddings of the reference inputs, on the CPU.

    Attributes:
        images: float (2, D).
        texts: float (3, D).
    """

    images: Tensor
    texts: Tensor


def reference_inputs(model: DualEncoder) -> tuple[Tensor, Tensor]:
    """Two pictures of noise, normalised, (2, 3, H, W), and the tokens of three texts (3, L)."""
    preprocess, tokenizer = model.spec.preprocess, model.spec.tokenizer
    noise = np.random.default_rng(0).integers(0, 256, (2, *preprocess.size, 3), np.uint8)
    tokens = tokenizer.trim(tokenizer(_TEXTS))
    return model.normalise(torch.from_numpy(noise)), torch.from_numpy(tokens)


@torch.no_grad()
def reference_outputs(model: DualEncoder) -> Reference:
    """Embed the reference inputs in eval mode and in the precision of the weights."""
    images, tokens = reference_inputs(model)
    training = model.training
    model.eval()
    with _exact_products():
        image_bd = model.encode_image(images.to(model.logit_scale))
        text_bd = model.encode_text(tokens.to(model.device))
    model.train(training)
    return Reference(F.normalize(image_bd, dim=-1).cpu(), F.normalize(text_bd, dim=-1).cpu())


def check_merged(
    trained: Reference, model: DualEncoder, *, what: str = "the merged model"
) -> float:
    """Hold a model against what the trained one made of the reference inputs.

    Args:
        what: the model is, for the message.

    Returns:
        The largest difference.

    Raises:
        AdaptError: it is beyond ``TOLERANCE``.
    """
    return compare_outputs(trained, reference_outputs(model), what)


def compare_outputs(trained: Reference, found: Reference, what: str) -> float:
    """Largest difference of two references.

    Raises:
        AdaptError: it is beyond ``TOLERANCE``, or one is not finite.
    """
    worst = 0.0
    for tower in ("images", "texts"):
        wanted, given = getattr(trained, tower), getattr(found, tower)
        if wanted.shape != given.shape:
            raise AdaptError(
                f"{what}: {tower[:-1]} embeddings {tuple(given.shape)}; the adapted model's are "
                f"{tuple(wanted.shape)}"
            )
        difference = float((wanted.double() - given.double()).abs().max())
        if not difference <= MERGE_TOLERANCE:  # NaN is beyond it too
            raise AdaptError(
                f"{what}: {tower[:-1]} embeddings differ from the adapted model's by "
                f"{difference:.2e}; allowed: {MERGE_TOLERANCE:g}"
            )
        worst = max(worst, difference)
    return worst


@contextmanager
def _exact_products() -> Iterator[None]:
    """No TF32 inside, whose rounding (1e-3) would hide and feign differences."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        with torch.backends.cudnn.flags(allow_tf32=False):
            yield
    finally:
        torch.set_float32_matmul_precision(before)
