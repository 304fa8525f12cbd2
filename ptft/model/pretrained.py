"""Weights of a whole architecture: an open_clip tag, a repository on the Hub, a folder, a file."""

import warnings
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from ptft.artifact import FolderFiles, read_json
from ptft.compat import import_open_clip
from ptft.errors import HubError, ModelError, RecipeError, suggest
from ptft.files.bounds import Bounds
from ptft.model.foreign import read_safetensors
from ptft.model.source import open_clip_weights
from ptft.model.spec import SPEC, load_spec
from ptft.model.store import OWN_WEIGHTS, hold
from ptft.model_source import fetch_source, model_folder
from ptft.reach import hub_at_hand
from ptft.recipe import ArchModel
from ptft.recipe.paths import is_hub_id
from ptft.speech import tell_once

__all__ = ["Pretrained", "check_pretrained", "find_pretrained", "read_tag"]

_PREPROCESS = ("mean", "std", "interpolation", "resize_mode", "reading")


@dataclass(frozen=True)
class Pretrained:
    """Where weights are, and what they say about the model.

    Attributes:
        label: what they are called in a card.
        read: fetches and reads them, by open_clip's or ptft's names.
        quick_gelu: whether they were trained with QuickGELU; None: they do not say.
        preprocess: parts of what ``ImagePreprocess.to_config`` gives; ``reading`` only where a
            folder of ptft's states one.
    """

    label: str
    read: Callable[[], Mapping[str, Tensor]]
    quick_gelu: bool | None = None
    preprocess: Mapping[str, Any] = field(default_factory=dict)


def check_pretrained(section: ArchModel) -> None:
    """Check that ``model.pretrained`` is a tag of the architecture, a path, or of a Hub id's form.

    Raises:
        RecipeError: naming the near misses.
    """
    name = section.pretrained
    if name is None or Path(name).expanduser().exists() or is_hub_id(name):
        return
    open_clip = import_open_clip()
    if open_clip.get_pretrained_cfg(section.name, name):
        return
    tags = open_clip.list_pretrained_tags_by_model(section.name)
    raise RecipeError(
        f"model.pretrained: {name!r}: not a tag of {section.name}; {suggest(name, tags)} "
        "(or a folder, a safetensors file, org/repo@revision)"
    )


def find_pretrained(section: ArchModel) -> Pretrained | None:
    """What ``model.pretrained`` names; nothing large is read yet.

    Raises:
        RecipeError: it is neither a tag nor a path nor a Hub id.
        ModelError, HubError: the folder or the repository holds no weights.
    """
    check_pretrained(section)
    name = section.pretrained
    if name is None:
        return None
    path = Path(name).expanduser()
    if path.is_file():
        return Pretrained(path.name, lambda: read_safetensors(path))
    if path.is_dir() or is_hub_id(name):
        return _from_folder(name)
    cfg = import_open_clip().get_pretrained_cfg(section.name, name)
    return Pretrained(
        label=f"{section.name}/{name}",
        read=lambda: read_tag(section.name, name, cfg),
        quick_gelu=bool(cfg.get("quick_gelu", False)),
        preprocess={key: cfg[key] for key in _PREPROCESS if cfg.get(key) is not None},
    )


def _from_folder(name: str) -> Pretrained:
    found = fetch_source(name)
    folder = model_folder(found)
    held = hold(folder)
    if (folder / SPEC).is_file():
        spec = load_spec(folder)
        config, preprocess = spec.config, spec.preprocess.to_config()
    else:
        values = read_json(folder / FolderFiles.OPEN_CLIP_CONFIG)
        file = Bounds(values, str(folder / FolderFiles.OPEN_CLIP_CONFIG), ModelError)
        config, preprocess = (
            Bounds(values.get(key, {}), f"{file.where}: {key}", ModelError).values
            for key in ("model_cfg", "preprocess_cfg")
        )
    weights = folder / OWN_WEIGHTS
    if not weights.is_file():
        weights = open_clip_weights(folder)

    def read() -> Mapping[str, Tensor]:
        state = read_safetensors(weights)
        held.check_unchanged()
        return {name: tensor for name, tensor in state.items() if not name.startswith("head.")}

    return Pretrained(
        label=found.label,
        read=read,
        quick_gelu=bool(config.get("quick_gelu", False)),
        preprocess={key: preprocess[key] for key in _PREPROCESS if key in preprocess},
    )


def read_tag(architecture: str, tag: str, cfg: Mapping[str, Any]) -> Mapping[str, Tensor]:
    """Fetch a tag's file as open_clip does: safetensors where there are any.

    The few that are published as .pt or .bin only are read by torch's loader of plain tensors.
    """
    open_clip = import_open_clip()
    from open_clip.factory import load_state_dict

    # a tag without a repository is at an address of its own, which the Hub says nothing of
    with hub_at_hand() if cfg.get("hf_hub") else nullcontext() as absent:
        if absent is None:
            place = cfg.get("hf_hub") or cfg.get("url") or "the Hub"
            tell_once(f"{tag} of {architecture}: from {place}, unless the cache has it")
        try:
            path = Path(open_clip.download_pretrained(dict(cfg)))
        except Exception as error:  # urllib's, huggingface_hub's and open_clip's own
            first = str(error).strip().split("\n")[0]
            why = f"not in the cache; {absent}" if absent else first
            raise HubError(f"model.pretrained: {tag!r} of {architecture}: {why}") from error
    if path.suffix == ".safetensors":
        return read_safetensors(path)
    if path.suffix not in (".pt", ".bin", ".pth"):
        raise ModelError(f"model.pretrained: {tag!r}: published as {path.suffix}; not supported")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's about the file's age
        return load_state_dict(str(path), weights_only=True)
