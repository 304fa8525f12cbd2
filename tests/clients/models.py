"""Small models with random weights, one for each class of transformers that a folder can hold, and
one that it has no class for."""

import copy
from pathlib import Path

import torch

from ptft.model import DualEncoder
from ptft.preprocess import TextTokenizer
from tests.support import tiny

__all__ = ["MODELS", "build"]

_LARGER = {
    "clip": 3.0,
    "dual": 14.0,
    "pooled": 14.0,
    "siglip": 2.0,
}  # seen to leave cosines of 0.99 at most
MODELS = tuple(_LARGER)


def build(name: str, work: Path) -> DualEncoder:
    """Build a model.

    ``clip``: open_clip's own towers (``CLIPModel``). ``dual``: timm's vision transformer with BERT
    (``VisionTextDualEncoderModel``). ``pooled``: the same, its texts pooled by their mean, as a
    recipe has it by default; sentence-transformers' own modules load that. ``siglip``: attention
    pooling, no mask, a bias (``SiglipModel``), as small as timm has one: 42 million weights.
    """
    if name in ("dual", "pooled"):
        pool = {"text_pool": "cls_pooler"} if name == "dual" else {}
        text = tiny.hf_text_folder(work / "tower" / "model")
        section = tiny.hf_section(text, image="test_vit", image_size=160, **pool)
    else:
        section = tiny.arch_section({"clip": "tiny-vit", "siglip": "tiny-padded-siglip"}[name])
    model = tiny.build(section, seed=5)
    if name == "siglip":
        _give_tokenizer(model, work)
    _stir(model, _LARGER[name])
    return model


def _give_tokenizer(model: DualEncoder, work: Path) -> None:
    """A vocabulary of transformers', as every SigLIP has one: its padding is part of the text, and
    open_clip finds it in the repository that the configuration names.
    """
    tokens = {"pad_token": "<pad>", "unk_token": "<unk>", "eos_token": "</s>"}
    tokenizer = TextTokenizer(
        tiny.hf_text_folder(work / "text", weights=False) / "tokenizer.json",
        context_length=model.context_length,
        kind="hf",
        clean="canonicalize",
        pad_id=1,
    )
    config = copy.deepcopy(dict(model.spec.config))
    config["text_cfg"]["hf_tokenizer_name"] = "tester/siglip"
    model.spec = model.spec.with_(
        config=config, tokenizer=tokenizer, tokenizer_config={**tokens, "bos_token": "<s>"}
    )


def _stir(model: DualEncoder, larger: float) -> None:
    """Larger weights, and random norms and biases: as they start, one picture or text has almost
    the embedding of another, and what was lost of ones and zeros would not show.
    """
    generator = torch.Generator().manual_seed(6)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "logit" in name:
                continue
            if parameter.ndim > 1:
                parameter.mul_(larger)
            else:
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
