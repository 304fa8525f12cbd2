"""A detector as transformers' ``OwlViTForObjectDetection``, where that computes the same."""

from typing import Any

import torch

from ptft.export.transformers_blocks import Unlike, refuse
from ptft.export.transformers_model import Converted
from ptft.export.transformers_towers import clip_image, clip_text
from ptft.model import DualEncoder

__all__ = ["convert_detector"]


@torch.no_grad()
def convert_detector(model: DualEncoder) -> Converted | str:
    """The model with its head for boxes in the class of transformers, or why not, in words.

    That class is for CLIP's towers: open_clip's vision transformer with a class token, and its
    causal text tower, whose width is that of the joint space.
    """
    try:
        return _convert(model)
    except Unlike as reason:
        return str(reason)


def _convert(model: DualEncoder) -> Converted:
    detector = model.detector
    if detector is None:
        raise Unlike("it has no head for boxes")
    refuse(model.spec.adapter is not None, "it has no place for an adapter")
    refuse(detector.spec.kind != "patches", "its places are feature maps, not patches")
    image, text = clip_image(model.image), clip_text(model.text, model.spec.tokenizer)
    width = model.spec.embed_dim
    refuse(model.text.pool_type != "argmax", "its text tower pools at an end mark of its own")
    refuse(
        text.config["hidden_size"] != width,
        f"its texts are {text.config['hidden_size']} wide before they are projected and {width} "
        "after, and OWL-ViT's class head has one width for both",
    )
    refuse(text.projection is None or image.projection is None, "a tower has no projection")
    assert text.projection is not None and image.projection is not None
    refuse(
        model.spec.preprocess.resize_mode != "squash",
        "it pads pictures, and OWL-ViT's processor scales both sides",
    )
    height, across = model.spec.preprocess.size
    refuse(height != across, "its pictures are no squares")
    state = {
        "owlvit.visual_projection.weight": image.projection,
        "owlvit.text_projection.weight": text.projection,
        "owlvit.logit_scale": model.logit_scale.reshape(()),
    }
    for name, tensor in image.state.items():
        spelt = name.replace("pre_layrnorm", "pre_layernorm")
        state[f"owlvit.vision_model.{spelt}"] = tensor
    for name, tensor in text.state.items():
        state[f"owlvit.text_model.{name}"] = tensor
    for name, tensor in detector.state_dict().items():
        state[name] = tensor
    config: dict[str, Any] = {
        "architectures": ["OwlViTForObjectDetection"],
        "model_type": "owlvit",
        "dtype": "float32",
        "projection_dim": width,
        "vision_config": {"model_type": "owlvit_vision_model", **image.config},
        "text_config": {"model_type": "owlvit_text_model", **text.config},
    }
    return Converted("OwlViTForObjectDetection", config, state)
