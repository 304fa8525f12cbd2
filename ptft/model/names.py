"""Names of weights: ptft's own, and open_clip's for the same architecture.

ptft names towers ``image`` and ``text``; open_clip says ``visual``, and for a plain CLIP puts the
text tower's parts beside it without a prefix. Its logit scale and bias have no dimension.
"""

from collections.abc import Mapping
from types import SimpleNamespace

import torch
from torch import Tensor, nn

from ptft.compat import import_open_clip
from ptft.errors import ModelError
from ptft.model.encoder import DualEncoder

__all__ = ["fit_state_dict", "from_open_clip", "open_clip_state_dict"]

_TEXT_PARTS = (
    "text_projection",
    "positional_embedding",
    "token_embedding",
    "transformer",
    "ln_final",
    "cls_emb",
)
# Buffers and scalars that old checkpoints carry and no module has any more
_STALE = (
    "text.transformer.embeddings.position_ids",
    "text.attn_mask",
    "attn_mask",
    "input_resolution",
    "context_length",
    "vocab_size",
)
_SHOWN = 6  # names in a message


def open_clip_state_dict(model: DualEncoder) -> dict[str, Tensor]:
    """The weights by open_clip's names: they load strictly into its model of the architecture.

    A classifier's head is not part of it.
    """
    flat = not _custom_text(model)
    renamed: dict[str, Tensor] = {}
    for name, tensor in model.state_dict().items():
        if name.startswith("head."):
            continue
        if name.startswith("image."):
            name = "visual." + name.removeprefix("image.")
        elif name.startswith("text.") and flat:
            name = name.removeprefix("text.")
        elif name in ("logit_scale", "logit_bias"):
            tensor = tensor.reshape(())
        renamed[name] = tensor
    return renamed


def from_open_clip(state: Mapping[str, Tensor], model: DualEncoder) -> dict[str, Tensor]:
    """open_clip's names, old and new, or ptft's, to ptft's; position embeddings are resized.

    Floating-point weights become float32. Weights without a logit bias get one of zero where the
    model has one, as open_clip does.
    """
    import_open_clip()
    from open_clip.convert import convert_state_dict
    from open_clip.model import resize_pos_embed, resize_text_pos_embed

    view = SimpleNamespace(visual=model.image, text=model.text)
    plain = {_visual(name.removeprefix("module.")): tensor for name, tensor in state.items()}
    plain = dict(convert_state_dict(view, plain))
    for stale in _STALE:
        plain.pop(stale, None)
    if not any(name.startswith("text.") for name in plain):
        plain = {
            ("text." + name if name.split(".")[0] in _TEXT_PARTS else name): tensor
            for name, tensor in plain.items()
        }
    plain = {
        name: tensor.float() if tensor.is_floating_point() else tensor
        for name, tensor in plain.items()
    }
    resize_pos_embed(plain, view)
    if hasattr(model.text, "positional_embedding"):
        resize_text_pos_embed(plain, view)
    if model.logit_bias is not None and "logit_bias" not in plain:
        plain["logit_bias"] = torch.zeros(1)
    own: dict[str, Tensor] = {}
    for name, tensor in plain.items():
        if name.startswith("visual."):
            name = "image." + name.removeprefix("visual.")
        if name in ("logit_scale", "logit_bias"):
            tensor = tensor.reshape(1)
        own[name] = tensor
    return own


def fit_state_dict(module: nn.Module, state: Mapping[str, Tensor], *, source: str) -> None:
    """Copy weights into a module; every one must be used, and every one of the module's be there.

    Args:
        source: what the weights are, for the message.

    Raises:
        ModelError: naming the weights that are missing, left over or of another shape.
    """
    own = module.state_dict()
    missing = [name for name in own if name not in state]
    left_over = [name for name in state if name not in own]
    misshapen = [
        f"{name} {tuple(state[name].shape)} for {tuple(own[name].shape)}"
        for name in own
        if name in state and state[name].shape != own[name].shape
    ]
    problems = [
        f"{what} {_first(names)}"
        for what, names in (
            ("missing", missing),
            ("left over", left_over),
            ("of another shape", misshapen),
        )
        if names
    ]
    if problems:
        raise ModelError(f"{source}: weights do not fit the architecture: {'; '.join(problems)}")
    module.load_state_dict(dict(state), strict=True)


def _visual(name: str) -> str:
    return "visual." + name.removeprefix("image.") if name.startswith("image.") else name


def _custom_text(model: DualEncoder) -> bool:
    """Whether open_clip's model of the architecture keeps the text tower under ``text``."""
    config = model.spec.config
    return bool(config.get("custom_text")) or "hf_model_name" in config["text_cfg"]


def _first(names: list[str]) -> str:
    shown = ", ".join(names[:_SHOWN])
    return shown if len(names) <= _SHOWN else f"{shown}, ... ({len(names)} in all)"
