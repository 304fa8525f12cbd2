"""The transformers text tower of a recipe: where it is, and the weights it starts from."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ptft.artifact import read_json
from ptft.compat import import_open_clip
from ptft.errors import ModelError, suggest
from ptft.files.bounds import Bounds
from ptft.model.foreign import check_folder_configs
from ptft.model_source import fetch_snapshot
from ptft.recipe import TowersModel
from ptft.recipe.paths import is_hub_id

__all__ = ["TransformersText", "check_context", "find_text", "load_text_weights"]

_CONFIG = ("*.json", "*.txt")  # with the tokenizer's files
# Names of folders that say where a model lies and not which it is
_PLACES = re.compile(r"(hf_?)?(text|model|encoder|transformer)s?|final|latest|[0-9a-f]{40}|\.*")


@dataclass(frozen=True)
class TransformersText:
    """A transformers model on this machine.

    Attributes:
        name: Hub id without the revision, or the folder as the recipe names it.
        folder: that holds ``config.json``, the tokenizer and, if asked for, the weights.
        local: whether the recipe names a folder.
        title: what to call it in public, without folders of this machine.
    """

    name: str
    folder: Path
    local: bool
    title: str


def find_text(section: TowersModel) -> TransformersText:
    """The model that ``model.text`` names, fetched if it is on the Hub.

    Raises:
        ModelError: no kind that open_clip has a tower for, or the context is too long for it.
        HubError: it cannot be fetched.
    """
    assert isinstance(section.text, str)
    local = Path(section.text).expanduser()
    if local.is_dir():
        config = _config(local)
        found = TransformersText(section.text, local, True, _title(local, config))
    else:
        patterns = (*_CONFIG, "*.safetensors") if section.text_weights else _CONFIG
        folder = fetch_snapshot(section.text, patterns)
        name = section.text.partition("@")[0]
        config = _config(folder)
        found = TransformersText(name, folder, False, name)
    check_folder_configs(found.folder)
    import_open_clip()
    from open_clip.hf_configs import arch_dict

    kind = config.get("model_type")
    if kind not in arch_dict:
        raise ModelError(
            f"model.text: {section.text!r}: a {kind} model; {suggest(str(kind), arch_dict)}"
        )
    check_context(section.context_length, config, section.text)
    return found


def check_context(length: int, config: Mapping[str, Any], name: str) -> None:
    """Check that a transformers model has positions for ``length`` tokens.

    Args:
        config: its ``config.json``.
        name: what to call it.

    Raises:
        ModelError: it has fewer.
    """
    longest = config.get("max_position_embeddings")
    if config.get("model_type") in ("roberta", "xlm-roberta") and longest is not None:
        longest -= config.get("pad_token_id", 1) + 1  # positions are counted from after padding
    if longest is not None and length > longest:
        raise ModelError(f"model.context_length: {length}; allowed for {name}: at most {longest}")


def load_text_weights(tower: Any, source: TransformersText) -> str:
    """Give a text tower its published weights.

    Returns:
        What was loaded, and which parts (heads of its pretraining) were left out.

    Raises:
        ModelError: there are no safetensors, or a weight of the tower is missing.
    """
    from transformers import AutoModel

    if not any(source.folder.glob("*.safetensors")):
        raise ModelError(f"model.text: {source.name}: has no safetensors; pickles are not read")
    encoder_decoder = bool(getattr(tower.config, "is_encoder_decoder", False))
    pooled = getattr(tower.transformer, "pooler", None) is not None
    extra = {} if encoder_decoder else {"add_pooling_layer": pooled}
    model, info = AutoModel.from_pretrained(
        source.folder,
        dtype=torch.float32,
        use_safetensors=True,
        trust_remote_code=False,
        local_files_only=True,
        output_loading_info=True,
        **extra,
    )
    missing = sorted(info["missing_keys"])
    if missing:
        hint = "; try text_pool: cls_last_hidden_state_pooler" if pooled else ""
        raise ModelError(f"model.text: {source.name}: no weights for {', '.join(missing)}{hint}")
    if info["mismatched_keys"]:
        raise ModelError(f"model.text: {source.name}: {info['mismatched_keys']}: other shapes")
    tower.transformer = model.encoder if encoder_decoder else model
    tower.transformer.train()
    left_out = sorted({name.rpartition(".")[0] for name in info["unexpected_keys"]})
    return source.title + (f" without {', '.join(left_out)}" if left_out else "")


def _title(folder: Path, config: Mapping[str, Any]) -> str:
    """The name of a model in a folder: the Hub's, where the folder or its configuration tells it,
    else the folder's own; where that is but a place (``model``), its kind, width and layers."""
    path = folder.resolve()
    for part in path.parts:  # huggingface_hub's cache: models--org--name/snapshots/...
        if part.startswith("models--"):
            return part.removeprefix("models--").replace("--", "/")
    origin = config.get("_name_or_path")
    if isinstance(origin, str) and is_hub_id(origin) and not Path(origin).exists():
        return origin
    if not _PLACES.fullmatch(path.name.lower()):
        return path.name
    kind = config.get("model_type", "text")
    width, layers = (
        next((config[key] for key in keys if key in config), None)
        for keys in (
            ("hidden_size", "d_model", "dim"),
            ("num_hidden_layers", "num_layers", "n_layers"),
        )
    )
    return f"{kind}{width}x{layers}" if width and layers else str(kind)


def _config(folder: Path) -> dict[str, Any]:
    path = folder / "config.json"
    return Bounds(read_json(path), str(path), ModelError).values
