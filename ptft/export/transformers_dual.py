"""Towers of transformers' ``VisionTextDualEncoderModel``: any of timm beside CLIP's text, and text
towers of transformers that pool as their own class does.
"""

from typing import Any

import torch
from torch import Tensor, nn

from ptft.export.transformers_blocks import Part, Unlike, refuse
from ptft.export.transformers_towers import clip_image, clip_text
from ptft.model import DualEncoder
from ptft.model.spec import ModelSpec
from ptft.model.towers import create_timm

__all__ = ["dual_image", "dual_text", "timm_arguments"]


def dual_image(model: DualEncoder) -> Part:
    """The image tower: timm's through ``TimmWrapperModel``, or open_clip's as CLIP's.

    Raises:
        Unlike: it is another tower, or computes something else.
    """
    tower = model.image
    if type(tower).__name__ == "VisionTransformer":
        part = clip_image(tower)
        config = {"model_type": "clip_vision_model", **part.config}
        return Part(config, _deeper("vision_model", part.state), part.projection)
    kind = type(tower).__name__
    refuse(kind != "TimmModel", f"the image tower is a {kind}")
    projection = _timm_projection(tower)
    name, arguments = timm_arguments(model.spec, tower.trunk)
    state = dict(tower.trunk.state_dict())
    _check_wrapped(name, arguments, state)
    config = {
        "model_type": "timm_wrapper",
        "architecture": name,
        "model_args": arguments,
        "hidden_size": model.spec.embed_dim if projection is None else projection.shape[1],
    }
    return Part(config, {f"timm_model.{key}": x for key, x in state.items()}, projection)


def dual_text(model: DualEncoder) -> Part:
    """The text tower: open_clip's as CLIP's, or one of transformers with its pooler.

    Raises:
        Unlike: it is another tower, or computes something else.
    """
    tower, tokenizer = model.text, model.spec.tokenizer
    if type(tower).__name__ == "TextTransformer":
        part = clip_text(tower, tokenizer)
        config = {"model_type": "clip_text_model", **part.config}
        return Part(config, _deeper("text_model", part.state), part.projection)
    pooled = type(tower.pooler).__name__ == "ClsPooler" and tower.pooler.use_pooler_output
    refuse(
        not pooled or getattr(tower.transformer, "pooler", None) is None,
        f"the text tower pools open_clip's way ({type(tower.pooler).__name__}), and a dual encoder "
        "by a layer of the text model's own, which this one has not",
    )
    refuse(not model.spec.text_trimmable, "the text tower masks another id than padding")
    refuse(isinstance(tower.proj, nn.Sequential), "the text projection has two layers")
    config = _without_origin(tower.config.to_dict())
    projection = None if isinstance(tower.proj, nn.Identity) else tower.proj.weight
    return Part(config, dict(tower.transformer.state_dict()), projection)


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


def _timm_projection(tower: Any) -> Tensor | None:
    """(D, F) after timm's trunk; None where there is none.

    Raises:
        Unlike: it is no plain matrix.
    """
    if next(tower.trunk.get_classifier().parameters(), None) is not None:
        raise Unlike("the image projection is timm's classifier, which has a bias")
    layers = [one for one in tower.head if not isinstance(one, nn.Dropout)]
    if not layers:
        return None
    plain = len(layers) == 1 and isinstance(layers[0], nn.Linear) and layers[0].bias is None
    refuse(not plain, "the image tower's projection is more than a matrix")
    return layers[0].weight


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


def _without_origin(config: dict[str, Any]) -> dict[str, Any]:
    drop = ("_name_or_path", "name_or_path", "transformers_version", "architectures", "dtype")
    return {key: value for key, value in config.items() if key not in drop}
