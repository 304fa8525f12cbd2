"""Patch dropout: training sees a random share of an image's patches (Li et al. 2023, FLIP)."""

from typing import Any

from torch import nn

from ptft.compat import import_open_clip, import_timm
from ptft.errors import ModelError
from ptft.model.encoder import DualEncoder

__all__ = ["set_patch_dropout"]


def set_patch_dropout(model: DualEncoder, share: float) -> str:
    """Leave out ``share`` of the patches of each image in training, in place.

    The layer has no weights and does nothing in eval mode, so neither evaluation nor what is saved
    and exported changes. Class and register tokens stay; of the patches, floor((1 - share) * n) do,
    at least one. Drawn anew for each image and step from torch's generator.

    Returns:
        What was done, for people.

    Raises:
        ModelError: the image tower is no plain vision transformer.
    """
    tower = model.image
    if type(tower).__name__ == "VisionTransformer":
        import_open_clip()
        from open_clip.transformer import PatchDropout

        tower.patch_dropout = PatchDropout(share)
        patches = tower.grid_size[0] * tower.grid_size[1]
    elif hasattr(tower, "trunk"):
        tower.trunk.patch_drop = _timm_layer(tower.trunk, share)
        patches = tower.trunk.patch_embed.num_patches
    else:
        raise _refused(type(tower).__name__)
    kept = max(1, int(patches * (1 - share)))
    return f"{kept} of {patches} patches of an image in training"


def _timm_layer(trunk: Any, share: float) -> nn.Module:
    import_timm()
    from timm.layers.patch_dropout import PatchDropout, PatchDropoutWithIndices
    from timm.models.eva import Eva
    from timm.models.vision_transformer import VisionTransformer

    if isinstance(trunk, VisionTransformer):
        return PatchDropout(share, num_prefix_tokens=trunk.num_prefix_tokens)
    if isinstance(trunk, Eva):  # rotary position embeddings have to be drawn with the patches
        return PatchDropoutWithIndices(share, num_prefix_tokens=trunk.num_prefix_tokens)
    raise _refused(type(trunk).__name__)


def _refused(kind: str) -> ModelError:
    return ModelError(
        f"augment.patch_dropout: the image tower is a {kind}, which needs its whole grid of "
        "patches; allowed: 0, or a vision transformer (open_clip's, timm's vit_* and eva*)"
    )
