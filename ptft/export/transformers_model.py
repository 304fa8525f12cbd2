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
from torch import Tensor, nn

from ptft.export.transformers_blocks import TowerPart, Unlike, refuse
from ptft.export.transformers_towers import clip_image, clip_text, siglip_image, siglip_text
from ptft.model import DualEncoder
from ptft.model.spec import ModelSpec
from ptft.model.towers import create_timm

__all__ = ["Converted", "convert", "dual_image", "dual_text", "timm_arguments", "without_origin"]


def dual_image(model: DualEncoder) -> TowerPart:
    """The image tower: timm's through ``TimmWrapperModel``, or open_clip's as CLIP's.

    Raises:
        Unlike: it is another tower, or computes something else.
    """
    tower = model.image
    if type(tower).__name__ == "VisionTransformer":
        part = clip_image(tower)
        config = {"model_type": "clip_vision_model", **part.config}
        return TowerPart(config, _deeper("vision_model", part.state), part.projection)
    kind = type(tower).__name__
    refuse(kind != "TimmModel", f"the image tower is a {kind}")
    state = dict(tower.trunk.state_dict())
    projection = _timm_projection(tower, state)
    name, arguments = timm_arguments(model.spec, tower.trunk)
    _check_wrapped(name, arguments, state)
    config = {
        "model_type": "timm_wrapper",
        "architecture": name,
        "model_args": arguments,
        "hidden_size": model.spec.embed_dim if projection is None else projection.shape[1],
    }
    return TowerPart(config, {f"timm_model.{key}": x for key, x in state.items()}, projection)


def dual_text(model: DualEncoder) -> TowerPart:
    """The text tower: open_clip's as CLIP's, or one of transformers with its pooler.

    Raises:
        Unlike: it is another tower, or computes something else.
    """
    tower, tokenizer = model.text, model.spec.tokenizer
    if type(tower).__name__ == "TextTransformer":
        part = clip_text(tower, tokenizer)
        config = {"model_type": "clip_text_model", **part.config}
        return TowerPart(config, _deeper("text_model", part.state), part.projection)
    pooled = type(tower.pooler).__name__ == "ClsPooler" and tower.pooler.use_pooler_output
    refuse(
        not pooled or getattr(tower.transformer, "pooler", None) is None,
        f"the text tower pools open_clip's way ({type(tower.pooler).__name__}), and a dual encoder "
        "by a layer of the text model's own, which this one has not",
    )
    refuse(not model.spec.text_trimmable, "the text tower masks another id than padding")
    refuse(isinstance(tower.proj, nn.Sequential), "the text projection has two layers")
    config = without_origin(tower.config.to_dict())
    projection = None if isinstance(tower.proj, nn.Identity) else tower.proj.weight
    return TowerPart(config, dict(tower.transformer.state_dict()), projection)


def _deeper(name: str, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The weights one level down, where transformers 4 has them; 5 reads them there as well."""
    return {f"{name}.{key}": tensor for key, tensor in state.items()}


def timm_arguments(spec: ModelSpec, trunk: Any) -> tuple[str, dict[str, Any]]:
    """timm's name of a trunk, and the arguments of ``timm.create_model`` that make it again."""
    vision = spec.config["vision_cfg"]
    arguments = dict(spec.image_args)
    if vision.get("timm_pool"):
        arguments["global_pool"] = vision["timm_pool"]
        if type(trunk).__name__ == "VisionTransformer" and vision["timm_pool"] != "map":
            # by itself it would move its norm behind the pooling; open_clip sets that afterwards
            arguments["fc_norm"] = not isinstance(trunk.fc_norm, nn.Identity)
    if spec.timm_input_size is not None:
        arguments["img_size"] = list(spec.timm_input_size)
    name = vision["timm_model_name"].partition(".")[0]
    return name, arguments


def _timm_projection(tower: Any, state: dict[str, Tensor]) -> Tensor | None:
    """(D, F) after timm's trunk; None where there is none.

    Args:
        state: the trunk's, from which a classifier that projects is taken out.

    Raises:
        Unlike: it is no plain matrix.
    """
    if next(tower.trunk.get_classifier().parameters(), None) is not None:
        return _take_classifier(tower.trunk, state)
    layers = [one for one in tower.head if not isinstance(one, nn.Dropout)]
    if not layers:
        return None
    plain = len(layers) == 1 and isinstance(layers[0], nn.Linear) and layers[0].bias is None
    refuse(not plain, "the image tower's projection is more than a matrix")
    return layers[0].weight


def _take_classifier(trunk: Any, state: dict[str, Tensor]) -> Tensor:
    """Take timm's classifier out of a state; its bias goes into the bias before it.

    W (x + b) + c is W (x + b + d) where W d = c, and such a d exists where the rows of W are
    independent; the one of least length is taken.

    Raises:
        Unlike: there is no such place, or no such d.
    """
    refuse(not isinstance(trunk.get_classifier(), nn.Linear), "its classifier is no linear layer")
    weight, bias = state.pop("head.weight"), state.pop("head.bias", None)
    if bias is None or not bias.any():
        return weight
    name = _last_bias(trunk)
    moved = torch.linalg.pinv(weight.double()) @ bias.double()
    left = (weight.double() @ moved - bias.double()).abs().max()
    # No d leaves more than float32's own rounding, and none is so long that W d cancels out: at 30
    # times the length of c, rounding is 30 * 6e-8 of c.
    longest = torch.linalg.matrix_norm(weight.double(), 2) * moved.norm()
    refuse(
        left > 1e-6 * bias.abs().max() or longest > 30 * bias.double().norm(),
        "the bias of its image projection cannot be moved before it",
    )
    state[name] = (state[name].double() + moved).float()
    return weight


def _last_bias(trunk: Any) -> str:
    """Name of the bias that is added last before a trunk's classifier.

    Raises:
        Unlike: it is not known.
    """
    kind = type(trunk).__name__
    refuse(
        kind not in ("Eva", "VisionTransformer"),
        f"the image projection is the classifier of timm's {kind}, which has a bias",
    )
    pool = trunk.attn_pool
    if not isinstance(trunk.fc_norm, nn.Identity):
        return "fc_norm.bias"
    if pool is None:
        return "norm.bias"  # pooling by a token or by the mean leaves it as it is
    refuse(getattr(pool, "mlp", None) is None, "its attention pool ends in no MLP")
    return "attn_pool.mlp.fc2.bias"


def _check_wrapped(name: str, arguments: dict[str, Any], state: dict[str, Tensor]) -> None:
    """Hold a trunk's weights against those of the network that transformers would build.

    Raises:
        Unlike: names or shapes differ.
    """
    with torch.device("meta"):
        theirs = create_timm(name, {**arguments, "num_classes": 0}).state_dict()
    shapes = {key: tensor.shape for key, tensor in theirs.items()}
    differ = [key for key in {*shapes, *state} if key not in state or key not in shapes]
    differ += [key for key in shapes if key in state and shapes[key] != state[key].shape]
    first = ", ".join(sorted(differ)[:3])
    refuse(differ, f"timm's {name}, made with {arguments}, has other weights ({first})")


def without_origin(config: dict[str, Any]) -> dict[str, Any]:
    """A configuration without where it came from and what wrote it."""
    drop = ("_name_or_path", "name_or_path", "transformers_version", "architectures", "dtype")
    return {key: value for key, value in config.items() if key not in drop}


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
