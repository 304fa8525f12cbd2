"""A model becomes a detector: its pictures' size, and a head for boxes."""

import copy
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ptft.errors import ModelError
from ptft.model.detector import DetectorSpec, build_detector
from ptft.model.encoder import DualEncoder
from ptft.model.towers import projection, resize_timm, seeded
from ptft.recipe import DetectObjective

__all__ = [
    "prepare_detector",
    "query_embeddings",
    "query_tokens",
    "restore_detector",
    "unread_by_detector",
]


def prepare_detector(
    model: DualEncoder,
    section: DetectObjective,
    classes: Sequence[str],
    *,
    seed: int,
    nms: float | None = None,
) -> None:
    """Make a model a detector as the recipe says, in place.

    A head that is there for the same kind of places stays: training goes on with it.

    Args:
        classes: what the boxes of training mark.
        nms: of its answers, see ``DetectorSpec``.

    Raises:
        ModelError: the image tower gives no grid, or does not take pictures of that size.
    """
    if section.image_size is not None:
        resize_pictures(model, section.image_size)
    preprocess = replace(model.spec.preprocess, resize_mode=section.fit)
    model.spec = model.spec.with_(preprocess=preprocess)
    with seeded(seed):
        fresh = build_detector(
            model.image, model.spec.embed_dim, maps=section.maps, width=section.width
        )
    detector = model.detector or fresh
    if (detector.spec.kind, detector.spec.maps, detector.spec.width) != (
        fresh.spec.kind,
        fresh.spec.maps,
        fresh.spec.width,
    ):
        detector = fresh
    detector.spec = replace(
        detector.spec,
        classes=tuple(classes),
        templates=tuple(section.templates),
        counting=None,  # of other classes, or of a head that was not trained on yet
        nms=nms,
    )
    model.set_detector(detector)


def restore_detector(model: DualEncoder) -> None:
    """Put the head on that the model's specification tells of, with random weights.

    Raises:
        ModelError: it does not fit the image tower.
    """
    assert model.spec.detector is not None
    said = DetectorSpec.from_dict(model.spec.detector)
    made = build_detector(model.image, model.spec.embed_dim, maps=said.maps, width=said.width)
    if (made.spec.kind, made.spec.maps, made.spec.width) != (said.kind, said.maps, said.width):
        raise ModelError(
            f"{model.spec.name}: its detector is of {said.kind} of width {said.width}; the image "
            f"tower gives {made.spec.kind} of width {made.spec.width}"
        )
    made.spec = said
    model.detector = made.to(model.device)


def resize_pictures(model: DualEncoder, size: int) -> None:
    """Give the image tower pictures of another size, in place; learned position embeddings are
    interpolated (bicubic, antialiased), as open_clip does when it loads them.

    Raises:
        ModelError: the tower has one size for good.
    """
    if model.spec.preprocess.size == (size, size):
        return
    config = copy.deepcopy(dict(model.spec.config))
    config["vision_cfg"]["image_size"] = size
    changes: dict[str, Any] = {}
    if type(model.image).__name__ == "VisionTransformer":
        _resize_positions(model.image, size)
    elif type(model.image).__name__ == "TimmModel":
        with seeded(0):
            new = resize_timm(model.image, size)
        if new is not None:
            changes["timm_input_size"] = new
            changes["open_clip_reason"] = model.spec.open_clip_reason or (
                f"it builds a timm tower at the tower's own size and not at {size}x{size}"
            )
        model.image.image_size = (size, size)
    else:
        raise ModelError(
            f"objective.image_size: {size}: {type(model.image).__name__} takes "
            f"{model.spec.preprocess.size[0]} pixels alone"
        )
    preprocess = replace(model.spec.preprocess, size=(size, size))
    model.spec = model.spec.with_(config=config, preprocess=preprocess, **changes)


@torch.no_grad()
def _resize_positions(tower: Any, size: int) -> None:
    patch = tower.patch_size[0]
    if size % patch:
        raise ModelError(f"objective.image_size: {size}; allowed: a multiple of the patch, {patch}")
    old, new = tower.grid_size, (size // patch, size // patch)
    table = tower.positional_embedding
    prefix = len(table) - old[0] * old[1]
    grid = table[prefix:].reshape(1, *old, -1).permute(0, 3, 1, 2)
    grid = F.interpolate(grid, size=new, mode="bicubic", antialias=True, align_corners=False)
    rows = torch.cat([table[:prefix], grid.permute(0, 2, 3, 1).reshape(new[0] * new[1], -1)])
    tower.positional_embedding = nn.Parameter(rows.clone())
    tower.grid_size, tower.image_size = new, (size, size)


def unread_by_detector(model: DualEncoder) -> list[nn.Parameter]:
    """What of the image tower a head for boxes does not read: of a transformer its projection, and
    what pools its tokens."""
    assert model.detector is not None
    if model.detector.spec.kind == "maps":
        return []
    parts: list[Any] = list(projection(model.image))
    parts.append(getattr(model.image, "attn_pool", None))
    trunk = getattr(model.image, "trunk", None)
    parts += [getattr(trunk, name, None) for name in ("attn_pool", "fc_norm", "head")]
    found: list[nn.Parameter] = []
    for part in parts:
        if isinstance(part, nn.Parameter):
            found.append(part)
        elif isinstance(part, nn.Module):
            found += part.parameters()
    return found


def query_tokens(model: DualEncoder, classes: Sequence[str], templates: Sequence[str]) -> Tensor:
    """Prompts of classes, one class after another, as tokens: int64 (Q * templates, L)."""
    prompts = [template.replace("{}", name) for name in classes for template in templates]
    tokenizer = model.spec.tokenizer
    return torch.from_numpy(tokenizer.trim(tokenizer(prompts)))


def query_embeddings(
    model: DualEncoder, classes: Sequence[str], templates: Sequence[str]
) -> Tensor:
    """Embeddings of classes, each the mean of its prompts', float (Q, D) on the model's device."""
    tokens = query_tokens(model, classes, templates).to(model.device)
    embedded = F.normalize(model.encode_text(tokens), dim=-1)
    return embedded.unflatten(0, (len(classes), len(templates))).mean(dim=1)
