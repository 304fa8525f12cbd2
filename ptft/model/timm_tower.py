"""The timm image tower of a recipe: its configuration, and weights of its own to start from."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from ptft.compat import import_timm
from ptft.errors import HubError, ModelError, RecipeError, suggest
from ptft.model.foreign import read_safetensors
from ptft.model.names import fit_state_dict
from ptft.model.towers import create_timm, default_pool
from ptft.model_source import fetch_snapshot
from ptft.reach import hub_at_hand
from ptft.recipe import TowersModel
from ptft.recipe.paths import is_hub_id
from ptft.speech import tell_once

__all__ = ["ImageWeights", "build_timm_config", "image_weights", "load_image_weights"]


@dataclass(frozen=True)
class ImageWeights:
    """Where an image tower's weights are: a file, a repository, or a tag of timm's."""

    label: str
    file: Path | None = None
    tagged: str | None = None
    image_args: Mapping[str, Any] | None = None

    def read(self) -> dict[str, Tensor]:
        """Tensors by timm's names.

        Raises:
            ModelError, HubError: they cannot be read or fetched.
        """
        if self.file is not None:
            return read_safetensors(self.file)
        assert self.tagged is not None
        with hub_at_hand() as absent:
            if absent is None:
                tell_once(f"{self.tagged} of timm: from the Hub, unless the cache has it")
            try:
                model = create_timm(self.tagged, self.image_args or {}, pretrained=True)
            except OSError as error:
                first = str(error).strip().split("\n")[0]
                why = f"not in the cache; {absent}" if absent else first
                raise HubError(f"model.image_weights: {self.label}: {why}") from error
        return model.state_dict()


def build_timm_config(section: TowersModel) -> dict[str, Any]:
    """open_clip's ``vision_cfg`` of a timm tower."""
    pool = section.image_pool
    if section.image_projection == "none" and not pool:
        # open_clip would switch pooling off
        pool = default_pool(section.image, section.image_args)
    return {
        "timm_model_name": section.image,
        "timm_model_pretrained": False,
        "timm_pool": pool,
        "timm_proj": section.image_projection,
        "image_size": section.image_size,
    }


def image_weights(section: TowersModel) -> ImageWeights | None:
    """What ``model.image_weights`` names; checked before anything is built.

    Raises:
        RecipeError: no file, no tag of the architecture, no form of a Hub id.
        HubError: the repository cannot be fetched.
    """
    name = section.image_weights
    if name is None:
        return None
    path = Path(name).expanduser()
    if path.is_file():
        return ImageWeights(path.name, file=path)
    if is_hub_id(name):
        return ImageWeights(name, file=_weights_in(fetch_snapshot(name), name))
    if path.is_dir():
        return ImageWeights(path.name, file=_weights_in(path, name))
    architecture = section.image.partition(".")[0]
    known = import_timm().list_pretrained(f"{architecture}.*")
    tags = [found.partition(".")[2] for found in known]
    if name not in tags:
        raise RecipeError(
            f"model.image_weights: {name!r}: not a tag of {architecture}; {suggest(name, tags)} "
            "(or a safetensors file, org/repo@revision)"
        )
    tagged = f"{architecture}.{name}"
    return ImageWeights(tagged, tagged=tagged, image_args=section.image_args)


def load_image_weights(tower: Any, weights: ImageWeights) -> str:
    """Copy weights into a tower's trunk, without the classifier that they come with.

    Returns:
        What was loaded, and that the classifier was dropped.

    Raises:
        ModelError: a weight is missing, or one beyond the classifier is left over.
    """
    trunk = tower.trunk
    state = weights.read()
    classifier = trunk.pretrained_cfg["classifier"]
    names = (classifier,) if isinstance(classifier, str) else tuple(classifier)
    own = trunk.state_dict()
    dropped = [
        name
        for name in state
        if name not in own and any(name.startswith(f"{prefix}.") for prefix in names)
    ]
    kept = {
        name: tensor.float() if tensor.is_floating_point() else tensor
        for name, tensor in state.items()
        if name not in dropped
    }
    fit_state_dict(trunk, kept, source=f"model.image_weights: {weights.label}")
    if not dropped:
        return weights.label
    return f"{weights.label} without its classifier ({', '.join(dropped)})"


def _weights_in(folder: Path, label: str) -> Path:
    path = folder / "model.safetensors"
    if not path.is_file():
        raise ModelError(f"model.image_weights: {label}: has no model.safetensors")
    return path
