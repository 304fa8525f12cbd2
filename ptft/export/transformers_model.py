"""The class of transformers that computes exactly what a dual encoder computes, with its weights.

- ``CLIPModel``: open_clip's vision transformer, and its causal text tower with CLIP's vocabulary;
- ``MetaClip2Model``: the same, its texts pooled at an end mark that the configuration names;
- ``SiglipModel``: timm's vision transformer with attention pooling, and open_clip's text tower
  without a mask, pooled at the last position;
- ``VisionTextDualEncoderModel``: any image tower of timm, or open_clip's vision transformer, and a
  causal text tower of open_clip's, or one of transformers that pools by its own pooler. Beside
  open_clip's text tower it needs transformers 5: 4.57 hands CLIP's text model an argument that it
  does not take.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ptft.export.transformers_blocks import TowerPart, Unlike, refuse
from ptft.export.transformers_dual import dual_image, dual_text
from ptft.export.transformers_towers import clip_image, clip_text, siglip_image, siglip_text
from ptft.model import DualEncoder
from ptft.model.spec import ModelSpec

__all__ = ["Converted", "convert"]


@dataclass(frozen=True)
class Converted:
    """A model as transformers knows it.

    Attributes:
        name: of the class.
        config: what makes it, for ``config.json``.
        state: every weight by the class's names; they share memory with the model.
    """

    name: str
    config: dict[str, Any]
    state: dict[str, Tensor]


@torch.no_grad()
def convert(model: DualEncoder) -> Converted | str:
    """The model in the exact class of transformers, or why there is none, in words.

    A classifier's head is not part of it.
    """
    if model.spec.adapter is not None:
        return f"it has no place for a {model.spec.adapter['section']['kind']} adapter"
    native_text = type(model.text).__name__ == "TextTransformer"
    native_image = type(model.image).__name__ == "VisionTransformer"
    if native_text and not native_image and model.text.attn_mask is None:
        choice = _siglip
    else:
        choice = _clip if native_text and native_image else _dual
    try:
        converted = choice(model)
        refuse(
            not _pads_alike(model.spec),
            "its text tower reads padding, and what its vocabulary names as padding is not what "
            "fills its texts",
        )
    except Unlike as reason:
        return str(reason)
    return converted


def _pads_alike(spec: ModelSpec) -> bool:
    """Whether texts are filled in transformers as they are here, where that matters."""
    token = spec.tokenizer_config.get("pad_token")
    return spec.text_trimmable or (
        isinstance(token, str) and spec.tokenizer.token_id(token) == spec.tokenizer.pad_id
    )


def _siglip(model: DualEncoder) -> Converted:
    image, text = siglip_image(model.image), siglip_text(model.text, model.spec.tokenizer)
    width = image.config["hidden_size"]
    refuse(
        text.config["projection_size"] != width,
        f"SigLIP's image tower has no projection: it gives {width} numbers, and texts have "
        f"{text.config['projection_size']}",
    )
    bias = torch.zeros(1) if model.logit_bias is None else model.logit_bias
    state = {"logit_scale": model.logit_scale, "logit_bias": bias}
    return _assemble("SiglipModel", "siglip", image, text, state)


def _clip(model: DualEncoder) -> Converted:
    _refuse_bias(model)
    image, text = clip_image(model.image), clip_text(model.text, model.spec.tokenizer)
    plain = model.text.pool_type == "argmax"
    name, kind = ("CLIPModel", "clip") if plain else ("MetaClip2Model", "metaclip_2")
    return _assemble(name, kind, image, text, _joint(model, image, text), model.spec.embed_dim)


def _dual(model: DualEncoder) -> Converted:
    _refuse_bias(model)
    image, text = dual_image(model), dual_text(model)
    return _assemble(
        "VisionTextDualEncoderModel",
        "vision-text-dual-encoder",
        image,
        text,
        _joint(model, image, text),
        model.spec.embed_dim,
    )


def _refuse_bias(model: DualEncoder) -> None:
    refuse(
        model.logit_bias is not None and model.logit_bias.any(),
        "the class for its towers has no logit bias, and the model was trained with one",
    )


def _joint(model: DualEncoder, image: TowerPart, text: TowerPart) -> dict[str, Tensor]:
    """The projections and the logit scale; a tower without a projection has the identity."""
    identity = torch.eye(model.spec.embed_dim)
    return {
        "visual_projection.weight": identity if image.projection is None else image.projection,
        "text_projection.weight": identity if text.projection is None else text.projection,
        "logit_scale": model.logit_scale.reshape(()),
    }


def _assemble(
    name: str,
    kind: str,
    image: TowerPart,
    text: TowerPart,
    joint: dict[str, Tensor],
    width: int | None = None,
) -> Converted:
    """Put towers and what joins them together.

    Args:
        width: of the joint space, where the configuration names it.
    """
    named: dict[str, Any] = {} if width is None else {"projection_dim": width}
    config = {
        "architectures": [name],
        "model_type": kind,
        "dtype": "float32",
        **named,
        # a dual encoder's towers say themselves what they are
        "vision_config": {"model_type": f"{kind}_vision_model", **named, **image.config},
        "text_config": {"model_type": f"{kind}_text_model", **named, **text.config},
    }
    state = {f"vision_model.{key}": tensor for key, tensor in image.state.items()}
    state |= {f"text_model.{key}": tensor for key, tensor in text.state.items()}
    return Converted(name, config, state | joint)
