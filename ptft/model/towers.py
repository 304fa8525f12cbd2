"""Towers of an architecture, from open_clip's configuration of it, with random weights; and which
of their weights are the projection's."""

import contextlib
import copy
import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ptft.compat import import_open_clip, import_timm
from ptft.errors import ModelError
from ptft.model.foreign import by_itself, check_timm_args
from ptft.speech import tell_once

__all__ = [
    "build_towers",
    "create_timm",
    "default_pool",
    "hash_tensor",
    "projection",
    "refuse_unsupported",
    "resize_timm",
    "seeded",
    "text_trimmable",
    "trunk_digest",
    "trunk_learns",
]


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Random numbers on the CPU from ``seed`` inside, and as they were afterwards."""
    before = torch.get_rng_state()
    torch.default_generator.manual_seed(seed)
    try:
        yield
    finally:
        torch.set_rng_state(before)


def refuse_unsupported(name: str, config: Mapping[str, Any]) -> None:
    """Refuse what is no pair of towers.

    Raises:
        ModelError: naming the architecture and the reason.
    """
    text, vision = config.get("text_cfg", {}), config.get("vision_cfg", {})
    reason = None
    if "multimodal_cfg" in config:
        reason = "it generates captions with a third, multimodal decoder (CoCa)"
    elif text.get("embed_cls"):
        reason = "its text tower appends a class token (CoCa)"
    elif text.get("output_tokens") or vision.get("output_tokens"):
        reason = "its towers give token sequences, not one embedding"
    elif text.get("tokenizer_mode"):
        reason = f"its tokenizer has a mode of its own ({text['tokenizer_mode']})"
    elif text.get("hf_pooler_type") == "max_pooler":
        reason = "open_clip's max_pooler masks the words and keeps the padding"
    if reason is not None:
        raise ModelError(f"{name}: not supported: {reason}; allowed: one embedding a tower")


def build_towers(
    config: Mapping[str, Any],
    *,
    image_args: Mapping[str, Any] | None = None,
    timm_input_size: tuple[int, int] | None = None,
    hf_folder: Path | None = None,
) -> tuple[nn.Module, nn.Module]:
    """The image and the text tower with random weights; nothing is fetched but, for a
    transformers text tower without ``hf_folder``, its configuration.

    Args:
        config: open_clip's ``model_cfg``.
        image_args: more keyword arguments of ``timm.create_model``.
        timm_input_size: height and width to resize a timm tower to.
        hf_folder: a folder with the ``config.json`` of the text tower.

    Raises:
        ModelError: a key that open_clip does not know, or values that do not fit together.
    """
    open_clip = import_open_clip()
    plain = copy.deepcopy(dict(config))
    plain.pop("custom_text", None)
    if "timm_model_name" in plain["vision_cfg"]:
        plain["vision_cfg"]["timm_model_pretrained"] = False
    if "hf_model_name" in plain["text_cfg"]:
        plain["text_cfg"]["hf_model_pretrained"] = False
        if hf_folder is not None:
            plain["text_cfg"]["hf_model_name"] = str(hf_folder)
        else:
            name = plain["text_cfg"]["hf_model_name"]
            tell_once(f"{name}: from the Hub, unless the cache has it")
    try:
        with by_itself(offline=hf_folder is not None):
            both = open_clip.CustomTextCLIP(**plain)
    except (
        ArithmeticError,
        AssertionError,
        AttributeError,
        KeyError,
        OSError,
        RuntimeError,
        TypeError,
        ValueError,
    ) as error:
        first = str(error).strip().split("\n")[0]
        raise ModelError(f"model: cannot be built: {type(error).__name__}: {first}") from error
    if image_args:
        _replace_trunk(both.visual, plain["vision_cfg"], image_args)
    if timm_input_size is not None:
        both.visual.set_input_size(timm_input_size)
    return both.visual, both.text


def projection(tower: Any) -> list[nn.Module | nn.Parameter]:
    """The last map into the joint space: what learns when its tower is locked. May be empty."""
    kind = type(tower).__name__
    parts: list[Any]
    match kind:
        case "VisionTransformer":
            parts = [tower.proj]
        case "ModifiedResNet":
            parts = [tower.attnpool.c_proj]
        case "TimmModel":  # a head of its own, or the network's classifier in its place
            parts = [tower.head, tower.trunk.get_classifier()]
        case "TextTransformer":
            parts = [tower.text_projection]
        case "HFTextEncoder":
            parts = [tower.proj]
        case _:
            raise ModelError(f"{kind}: not a tower that ptft knows")
    return [
        part
        for part in parts
        if isinstance(part, nn.Parameter)
        or (isinstance(part, nn.Module) and next(part.parameters(), None) is not None)
    ]


def trunk_learns(tower: Any) -> bool:
    """Whether a weight of the tower before its projection requires a gradient."""
    apart = _projected(tower)
    return any(p.requires_grad for p in tower.parameters() if id(p) not in apart)


def trunk_digest(tower: Any) -> str:
    """sha256 of the trunk's weights and buffers with their names; the projection is left out."""
    apart = _projected(tower)
    digest = hashlib.sha256(type(tower).__name__.encode())
    for name, tensor in tower.state_dict(keep_vars=True).items():
        if id(tensor) not in apart:
            hash_tensor(digest, name, tensor)
    return digest.hexdigest()


def hash_tensor(digest: "hashlib._Hash", name: str, tensor: Tensor) -> None:
    """Add a tensor's name, type, shape and bytes to a digest."""
    plain = tensor.detach().cpu().contiguous()
    digest.update(f"{name} {plain.dtype} {tuple(plain.shape)}\n".encode())
    digest.update(plain.view(-1).view(torch.uint8).numpy().data)


def _projected(tower: Any) -> set[int]:
    """Identities of the projection's weights and buffers."""
    found: set[int] = set()
    for part in projection(tower):
        if isinstance(part, nn.Module):
            found.update(map(id, (*part.parameters(), *part.buffers())))
        else:
            found.add(id(part))
    return found


def text_trimmable(config: Mapping[str, Any], text: Any, *, pad_id: int) -> bool:
    """Whether padding after the text never reaches the embedding.

    So it is for causal towers that pool at the end mark, and for transformers' encoders, which mask
    it, if the tokenizer pads with the id that the encoder masks.
    """
    cfg = config["text_cfg"]
    if "hf_model_name" in cfg:
        return text.config.pad_token_id == pad_id
    return not cfg.get("no_causal_mask") and text.pool_type in ("argmax", "eos")


def resize_timm(tower: Any, size: int) -> tuple[int, int] | None:
    """Make a timm tower take ``size`` pixels; the new size, or None where nothing had to change.

    Raises:
        ModelError: the network has one size for good.
    """
    trunk = tower.trunk
    default = tuple(trunk.pretrained_cfg["input_size"][-2:])
    if default == (size, size):
        return None
    if hasattr(trunk, "set_input_size"):
        try:
            tower.set_input_size((size, size))
        except (AssertionError, ValueError) as error:
            raise ModelError(f"model.image_size: {size}: {error}") from None
        return (size, size)
    if trunk.pretrained_cfg.get("fixed_input_size"):
        raise ModelError(f"model.image_size: {size}; allowed for this tower: {default[0]}")
    return None


def default_pool(name: str, image_args: Mapping[str, Any]) -> str:
    """The global pooling that a timm network has by itself.

    Raises:
        ModelError: it does not say.
    """
    with torch.device("meta"):
        trunk = create_timm(name, image_args)
    head = getattr(trunk, "head", None)
    for pool in (getattr(trunk, "global_pool", None), getattr(head, "global_pool", None)):
        kind = pool if isinstance(pool, str) else getattr(pool, "pool_type", None)
        if kind:
            return str(kind)
    raise ModelError(f"model.image_pool: {name} has no default; give avg, token or map")


def create_timm(name: str, image_args: Mapping[str, Any], *, pretrained: bool = False) -> Any:
    """``timm.create_model`` with its errors told in the recipe's words."""
    timm = import_timm()
    check_timm_args(image_args, "model.image_args")
    try:
        return timm.create_model(name, pretrained=pretrained, **image_args)
    except (AssertionError, RuntimeError, TypeError, ValueError) as error:
        given = f"model.image_args: {dict(image_args)}" if image_args else "model.image"
        raise ModelError(f"{given}: {name}: {error}") from error


def _replace_trunk(
    tower: Any, vision_cfg: Mapping[str, Any], image_args: Mapping[str, Any]
) -> None:
    """What open_clip's TimmModel does to its trunk, with keyword arguments it has no place for."""
    trunk = create_timm(vision_cfg["timm_model_name"], image_args)
    pool = vision_cfg.get("timm_pool", "avg")
    if trunk.num_features != tower.trunk.num_features:
        raise ModelError(
            f"model.image_args: {dict(image_args)}: they change the tower's width from "
            f"{tower.trunk.num_features} to {trunk.num_features}; choose another architecture"
        )
    if pool in ("abs_attn", "rot_attn"):  # open_clip's head pools
        pool_args = {"global_pool": ""}
    else:
        pool_args = {"global_pool": pool} if pool else {}
    trunk.reset_classifier(0, **pool_args)
    tower.trunk = trunk
