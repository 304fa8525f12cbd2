"""Files of somebody else's: nothing in them runs, fetches, or takes more than is there.

transformers, timm and open_clip do what a configuration says: run a module of the repository
(``auto_map``), fetch another one, read a pickle (``checkpoint_path``), build layers without end. A
model folder, a checkpoint or a repository is read for itself alone; what a recipe of the user's own
names may be fetched, and never run.
"""

import math
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import Tensor

from ptft.artifact import PICKLES, read_json
from ptft.compat import import_open_clip
from ptft.errors import ModelError
from ptft.files.arrays import check_header
from ptft.files.bounds import Bounds, shown
from ptft.model_record import MAX_CONTEXT, MAX_SIDE, MAX_WIDTH

__all__ = [
    "PLAIN",
    "by_itself",
    "check_architecture",
    "check_folder_configs",
    "check_timm_args",
    "read_safetensors",
    "refuse_code",
]

PLAIN = re.compile(r"[A-Za-z0-9_]+(\.[A-Za-z0-9_]+)?")
"""A name of timm's, with its tag: no place (``hf-hub:``, ``local-dir:``) to fetch or read from."""

_MAX_LAYERS = 1024
_MAX_WORDS = 4_000_000
_MAX_MASK = 8192  # tokens of open_clip's own text tower: its causal mask is the square of it
_MAX_VALUES = 1_000_000  # in one configuration
_RUNS = {  # key -> why no configuration may have it
    "auto_map": "it names code of the repository",
    "auto_mapping": "it names a module to import",
    "custom_pipelines": "it names code of the repository",
    "custom_pipeline": "it names code of the repository",
    "trust_remote_code": "it asks to run code",
    "_target_": "it names a function to call",
    "checkpoint_path": "it names a file to read, a pickle too",
    "pretrained_cfg_overlay": "it names files to fetch",
    "hf_hub_id": "it names a repository to fetch",
    "quantization_config": "it names libraries to load weights by",
    "backbone": "it names a model to fetch",
    "use_pretrained_backbone": "it names weights to fetch",
}
_EMPTY: tuple[Any, ...] = (None, False, "", {}, [])
_ATTENTION = ("attn_implementation", "_attn_implementation", "experts_implementation")
_IMPLEMENTATIONS = (None, "eager", "sdpa", "grouped_mm", "batched_mm")
_CLASS = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_NAMED = {
    "tokenizer_class": _CLASS,
    "processor_class": _CLASS,
    "image_processor_type": _CLASS,
    "model_type": re.compile(r"[\w.-]+", re.ASCII),
}
_TIMM_ARGS = {
    *("pretrained", "pretrained_cfg", "pretrained_cfg_overlay", "checkpoint_path", "cache_dir"),
    *("scriptable", "exportable", "no_jit", "features_only", "model_name", "hf_hub_id"),
}
_CONFIGS = ("config.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """Tensors of a safetensors file.

    Raises:
        ModelError: the file is absent, of another kind, or damaged.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if path.suffix in PICKLES:
        raise ModelError(
            f"{path}: a {path.suffix} file may run code when it is read; allowed: .safetensors"
        )
    if not path.is_file():
        raise ModelError(f"{path}: no such file")
    check_header(path, error=ModelError)
    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise ModelError(f"{path}: not a safetensors file: {error}") from None


@contextmanager
def by_itself(*, offline: bool) -> Iterator[None]:
    """Hugging Face's libraries inside never ask whether to run code, and, ``offline``, never fetch.

    Their question comes from whatever library leaves ``trust_remote_code`` out, as open_clip does.
    """
    from huggingface_hub import constants
    from transformers import dynamic_module_utils as modules

    hub, patience = constants.HF_HUB_OFFLINE, modules.TIME_OUT_REMOTE_CODE
    constants.HF_HUB_OFFLINE = hub or offline
    modules.TIME_OUT_REMOTE_CODE = 0  # seconds that they wait for the answer: they raise instead
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE, modules.TIME_OUT_REMOTE_CODE = hub, patience


def check_folder_configs(folder: Path) -> None:
    """Hold transformers' configurations in a folder to :func:`refuse_code`.

    Raises:
        ModelError, ArtifactError: naming the file and the key.
    """
    for name in _CONFIGS:
        if (folder / name).is_file():
            refuse_code(read_json(folder / name), str(folder / name))


def refuse_code(values: Any, where: str) -> None:
    """Refuse keys that make a library run, fetch or read something else, at any depth.

    Raises:
        ModelError: naming ``where``, the key, and why.
    """
    top = Bounds(values, where, ModelError)
    waiting: list[Any] = [values]
    count = 0
    while waiting:
        value = waiting.pop()
        count += 1
        if count > _MAX_VALUES:
            raise ModelError(f"{where}: more than {_MAX_VALUES} values; allowed: at most that")
        if isinstance(value, list):
            waiting += value
        elif isinstance(value, dict):
            waiting += value.values()
            for key, found in value.items():
                _check_key(key, found, top)
        elif isinstance(value, float) and not math.isfinite(value):
            pass  # transformers writes infinities for bounds that it has none of


def _check_key(key: str, value: Any, top: Bounds) -> None:
    if key in _RUNS and value not in _EMPTY:
        top.refuse(key, value, f"none, since {_RUNS[key]}, and a model is only read")
    if key in _ATTENTION and value not in _IMPLEMENTATIONS:
        top.refuse(key, value, "eager, sdpa; others are fetched and run")
    named = _NAMED.get(key) if value is not None else None
    if named is not None and not (isinstance(value, str) and named.fullmatch(value)):
        top.refuse(key, value, "a plain name")
    if key in ("hidden_size", "d_model", "dim", "num_hidden_layers", "num_layers", "n_layers"):
        most = _MAX_LAYERS if "layers" in key else MAX_WIDTH
        if value is not None:
            top.check_whole(value, key, 0, most)
    if key in ("vocab_size", "max_position_embeddings", "intermediate_size") and value is not None:
        top.check_whole(value, key, -1, _MAX_WORDS)


def check_timm_args(arguments: Mapping[str, Any], where: str) -> None:
    """Refuse arguments of ``timm.create_model`` that read, fetch or compile something.

    Raises:
        ModelError: naming ``where`` and the argument.
    """
    for key, value in Bounds(dict(arguments), where, ModelError).values.items():
        if key in _TIMM_ARGS or key.startswith("pretrained"):
            raise ModelError(f"{where}: {key}: it reads or fetches something; allowed: none of it")
        for one in value if isinstance(value, list | tuple) else [value]:
            if not isinstance(one, str | int | float | bool | None):
                raise ModelError(f"{where}: {key}: {shown(one)}; allowed: numbers and words")


def check_architecture(
    config: Any, image_args: Any, where: str, *, weights: int, hf_folder: Path | None = None
) -> None:
    """Hold open_clip's ``model_cfg`` of an artefact to names, bounds and the weights beside it.

    Args:
        image_args: keyword arguments of ``timm.create_model``.
        weights: bytes of the files that hold the model's weights; one has a byte at least.
        hf_folder: that holds ``config.json`` of a transformers text tower.

    Raises:
        ModelError: naming ``where``, the key, its value and what is allowed.
    """
    top = Bounds(config, where, ModelError)
    top.keys(config, ("embed_dim", "vision_cfg", "text_cfg"))
    top.whole("embed_dim", 1, MAX_WIDTH)
    refuse_code(config, where)
    check_timm_args(image_args or {}, f"{where}: image_args")
    import_open_clip()
    vision = Bounds(config["vision_cfg"], f"{where}: vision_cfg", ModelError)
    text = Bounds(config["text_cfg"], f"{where}: text_cfg", ModelError)
    from open_clip.model import CLIPTextCfg, CLIPVisionCfg

    vision.keys(CLIPVisionCfg.__dataclass_fields__)
    text.keys(CLIPTextCfg.__dataclass_fields__)
    declared = _vision(vision, image_args or {}) + _text(text, where, hf_folder)
    if declared > weights:
        raise ModelError(
            f"{where}: {declared:.3g} parameters are declared; its weights have {weights} bytes"
        )


def _vision(cfg: Bounds, image_args: Mapping[str, Any]) -> float:
    """A lower bound of an image tower's parameters."""
    values = cfg.values
    name = values.get("timm_model_name")
    if name is not None and not (isinstance(name, str) and PLAIN.fullmatch(name)):
        cfg.refuse("timm_model_name", name, "a name of timm's without a place")
    sides = values.get("image_size", 224)
    for side in sides if isinstance(sides, list) else [sides]:
        cfg.check_whole(side, "image_size", 1, MAX_SIDE)
    for key in ("width", "head_width", "attn_pooler_queries", "attn_pooler_heads"):
        cfg.whole(key, 1, MAX_WIDTH)
    cfg.whole("patch_size", 1, MAX_SIDE, none=True)
    cfg.number("mlp_ratio", 0.0, 64.0)
    layers = values.get("layers", 12)
    for count in layers if isinstance(layers, list) else [layers]:
        cfg.check_whole(count, "layers", 0, _MAX_LAYERS)
    if name is not None:
        asked = Bounds(dict(image_args), f"{cfg.where}: image_args", ModelError)
        asked.whole("depth", 0, _MAX_LAYERS)
        asked.whole("embed_dim", 1, MAX_WIDTH)
        depth, width = (asked.values.get(key, 0) for key in ("depth", "embed_dim"))
        return float(depth) * 4 * width**2
    width = values.get("width", 768 if not isinstance(layers, list) else 64)
    if isinstance(layers, list):
        return float(sum(layers)) * width**2
    height, wide = sides if isinstance(sides, list) and len(sides) == 2 else (sides, sides)
    patches = (height // (values.get("patch_size") or 16)) * (
        wide // (values.get("patch_size") or 16)
    )
    return layers * _block(width, values.get("mlp_ratio", 4.0)) + patches * width


def _text(cfg: Bounds, where: str, hf_folder: Path | None) -> float:
    """A lower bound of a text tower's parameters."""
    values = cfg.values
    for key in ("hf_model_name", "hf_tokenizer_name"):
        cfg.text(key, 500, none=True)
    cfg.whole("context_length", 1, MAX_CONTEXT)
    if values.get("hf_model_name") is not None:
        if hf_folder is None:
            raise ModelError(
                f"{where}: text_cfg.hf_model_name: {shown(values['hf_model_name'])}: another "
                "repository, which would have to be fetched; allowed: its config.json in a folder "
                "hf_text beside this file, or a recipe that names it in model.text"
            )
        check_folder_configs(hf_folder)
        place = hf_folder / "config.json"
        config = Bounds(read_json(place), str(place), ModelError).values
        width = _first(config, "hidden_size", "d_model", "dim")
        layers = _first(config, "num_hidden_layers", "num_layers", "n_layers", "encoder_layers")
        return float(layers) * 4 * width**2 + _first(config, "vocab_size") * width
    cfg.whole("context_length", 1, _MAX_MASK)
    for key, most in (("width", MAX_WIDTH), ("heads", MAX_WIDTH), ("vocab_size", _MAX_WORDS)):
        cfg.whole(key, 1, most)
    cfg.whole("layers", 0, _MAX_LAYERS)
    cfg.number("mlp_ratio", 0.0, 64.0)
    width, layers = values.get("width", 512), values.get("layers", 12)
    tokens = values.get("vocab_size", 49408) + values.get("context_length", 77)
    return float(layers * _block(width, values.get("mlp_ratio", 4.0)) + tokens * width)


def _block(width: int, ratio: float) -> float:
    """Weights of a layer of a transformer: attention, and two maps between it and the wider one."""
    return (4 + 2 * ratio) * float(width) ** 2


def _first(config: Mapping[str, Any], *keys: str) -> int:
    found = next((config[key] for key in keys if config.get(key) is not None), 0)
    return found if isinstance(found, int) else 0
