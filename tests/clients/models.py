"""Small models with random weights, one for each class of transformers that a folder can hold."""

from pathlib import Path

import torch

from ptft.model import DualEncoder
from tests import tiny

__all__ = ["MODELS", "build"]

MODELS = ("clip", "dual", "siglip")


def build(name: str, work: Path) -> DualEncoder:
    """Build a model.

    ``clip``: open_clip's own towers (``CLIPModel``). ``dual``: timm's vision transformer with BERT
    (``VisionTextDualEncoderModel``). ``siglip``: attention pooling, no mask, a bias
    (``SiglipModel``), as small as timm has one: 42 million weights.
    """
    if name == "dual":
        text = tiny.hf_text_folder(work / "text")
        section = tiny.hf_section(text, image="test_vit", text_pool="cls_pooler", image_size=160)
    else:
        section = tiny.arch_section({"clip": "tiny-vit", "siglip": "small-siglip"}[name])
    model = tiny.build(section, seed=5)
    _stir(model)
    return model


def _stir(model: DualEncoder) -> None:
    """Random norms and biases: what starts at one or zero would hide that it was lost."""
    generator = torch.Generator().manual_seed(6)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim <= 1 and "logit" not in name:
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
