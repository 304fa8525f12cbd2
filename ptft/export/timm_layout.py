"""What makes timm load the image tower, its projection included, from a model folder.

timm reads the architecture and its arguments from keys of ``config.json`` that transformers leaves
alone, and the weights from open_clip's file, whose names it knows.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from ptft.artifact import FolderFiles
from ptft.compat import import_timm
from ptft.export.transformers_blocks import Unlike, activation, refuse
from ptft.export.transformers_model import timm_arguments
from ptft.model import DualEncoder
from ptft.onnx.golden import Golden
from ptft.preprocess import ImagePreprocess

__all__ = ["TimmLayout", "embed_by_timm", "timm_layout"]

_CLIP_RESNETS = {  # blocks of each stage -> timm's name
    "3,4,6,3": "resnet50_clip",
    "3,4,23,3": "resnet101_clip",
    "4,6,10,6": "resnet50x4_clip",
    "6,8,18,8": "resnet50x16_clip",
    "3,15,36,10": "resnet50x64_clip",
}
_CROP_MODES = {"shortest": "center", "squash": "squash", "longest": "border"}


@dataclass(frozen=True)
class TimmLayout:
    """An image tower as timm knows it.

    Attributes:
        name: of the architecture.
        config: what makes it, for ``config.json``.
    """

    name: str
    config: dict[str, Any]


def timm_layout(model: DualEncoder) -> TimmLayout | str:
    """The image tower by timm's names, or why timm cannot load it, in words."""
    if model.spec.open_clip_config is None:
        return f"it reads open_clip's weights, which are not there: {model.spec.open_clip_reason}"
    try:
        name, arguments, width = _architecture(model)
        fixed = _fixed_size(model.image)
    except Unlike as reason:
        return str(reason)
    config: dict[str, Any] = {"architecture": name, "num_classes": width}
    if arguments:
        config["model_args"] = arguments
    config["pretrained_cfg"] = {
        **_pretrained_cfg(model.spec.preprocess),
        "fixed_input_size": fixed,
        "num_classes": width,
    }
    return TimmLayout(name, config)


@torch.no_grad()
def embed_by_timm(folder: Path, golden: Golden, preprocess: ImagePreprocess) -> np.ndarray:
    """Let timm load the folder's image tower and embed the golden pictures: (N, D).

    Raises:
        whatever timm raises where it cannot.
    """
    weights = {"source": "", "file": str(folder / FolderFiles.OPEN_CLIP_WEIGHTS)}
    tower = import_timm().create_model(
        f"local-dir:{folder}", pretrained=True, pretrained_cfg_overlay=weights
    )
    return tower.eval()(torch.from_numpy(preprocess.normalise(golden.pixels))).numpy()


def _architecture(model: DualEncoder) -> tuple[str, dict[str, Any], int]:
    """timm's name, its arguments, and the classes (D; 0: no projection).

    Raises:
        Unlike: timm has no such network.
    """
    tower, width = model.image, model.spec.embed_dim
    match type(tower).__name__:
        case "TimmModel":
            layers = [one for one in tower.head if not isinstance(one, nn.Dropout)]
            own = next(tower.trunk.get_classifier().parameters(), None) is not None
            plain = all(isinstance(one, nn.Linear) for one in layers)
            refuse(not plain, "the image tower's projection is more than one layer")
            name, arguments = timm_arguments(model.spec, tower.trunk)
            return name, arguments, width if layers or own else 0
        case "ModifiedResNet":
            stages = (tower.layer1, tower.layer2, tower.layer3, tower.layer4)
            known = _CLIP_RESNETS.get(",".join(str(len(stage)) for stage in stages))
            refuse(known is None, "timm has no CLIP ResNet with these blocks")
            return str(known), {"img_size": tower.image_size}, width
        case "VisionTransformer":
            return _vision_transformer(tower, width)
        case other:
            raise Unlike(f"the image tower is a {other}")


def _vision_transformer(tower: Any, width: int) -> tuple[str, dict[str, Any], int]:
    block = tower.transformer.resblocks[0]
    quick = activation(block.mlp.gelu) == "quick_gelu"
    refuse(
        tower.attn_pool is not None or tower.pool_type != "tok",
        "the image tower does not pool at its class token",
    )
    refuse(isinstance(tower.ln_pre, nn.Identity), "the image tower has no norm before its blocks")
    refuse(not isinstance(block.ls_1, nn.Identity), "timm reads no layer scale of open_clip's")
    arguments = {
        "img_size": list(tower.image_size),
        "patch_size": tower.patch_size[0],
        "embed_dim": tower.transformer.width,
        "depth": tower.transformer.layers,
        "num_heads": block.attn.num_heads,
        "mlp_ratio": block.mlp.c_fc.out_features / tower.transformer.width,
    }
    name = "vit_base_patch32_clip_quickgelu_224" if quick else "vit_base_patch32_clip_224"
    return name, arguments, 0 if tower.proj is None else width


def _fixed_size(tower: Any) -> bool:
    """Whether timm tells the network the size of pictures when it makes it."""
    if type(tower).__name__ == "TimmModel":
        return bool(tower.trunk.pretrained_cfg.get("fixed_input_size", False))
    return True


def _pretrained_cfg(preprocess: ImagePreprocess) -> dict[str, Any]:
    return {
        "input_size": [3, *preprocess.size],
        "interpolation": preprocess.interpolation,
        "crop_pct": 1.0,
        "crop_mode": _CROP_MODES[preprocess.resize_mode],
        "mean": list(preprocess.mean),
        "std": list(preprocess.std),
        "hf_hub_filename": FolderFiles.OPEN_CLIP_WEIGHTS,
    }
