"""A detector as transformers' ``OwlViTForObjectDetection``, where that computes the same."""

from typing import Any

import numpy as np
import torch

from ptft.errors import ParityError
from ptft.export.transformers_blocks import Unlike, refuse
from ptft.export.transformers_model import Converted
from ptft.export.transformers_towers import clip_image, clip_text
from ptft.model import DualEncoder
from ptft.onnx.golden import Golden

__all__ = ["OWLVIT", "check_owlvit", "convert_detector", "owlvit_processor"]

OWLVIT = "OwlViTForObjectDetection"
"""The class of transformers."""


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
        "architectures": [OWLVIT],
        "model_type": "owlvit",
        "dtype": "float32",
        "projection_dim": width,
        "vision_config": {"model_type": "owlvit_vision_model", **image.config},
        "text_config": {"model_type": "owlvit_text_model", **text.config},
    }
    return Converted(OWLVIT, config, state)


def owlvit_processor(processor: dict[str, Any] | None) -> dict[str, Any]:
    """``preprocessor_config.json`` by OWL-ViT's processor, which makes pixels as SigLIP's does and
    knows boxes."""
    assert processor is not None, "a detector that was converted scales both sides"
    return {**processor, "image_processor_type": "OwlViTImageProcessor"}


@torch.no_grad()
def check_owlvit(theirs: Any, model: DualEncoder, golden: Golden, tolerance: float) -> float:
    """Hold what transformers loaded of the folder to the golden boxes and logits.

    Logits count by the size of the largest, since their scale is learned.

    Raises:
        ParityError: they differ by more than ``tolerance``.
    """
    assert golden.detect_logits is not None and golden.detect_boxes is not None
    tokens = torch.from_numpy(golden.tokens)
    count = len(golden.pixels)
    found = theirs(
        input_ids=tokens.repeat(count, 1),
        attention_mask=torch.ones_like(tokens).repeat(count, 1),
        pixel_values=torch.from_numpy(model.spec.preprocess.normalise(golden.pixels)),
    )
    scale = max(1.0, float(np.abs(golden.detect_logits).max()))
    pairs = {
        "logits": (found.logits.numpy() / scale, golden.detect_logits / scale),
        "boxes": (found.pred_boxes.numpy(), golden.detect_boxes),
    }
    worst = 0.0
    for what, (mine, wanted) in pairs.items():
        difference = float(np.abs(mine - wanted).max())
        if not difference <= tolerance:  # NaN is beyond it too
            raise ParityError(
                f"OwlViTForObjectDetection: {what} differ from the model's by {difference:.2e}; "
                f"allowed: {tolerance:g}"
            )
        worst = max(worst, difference)
    return worst
