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

__all__ = ["check_fit", "fit_state_dict", "from_open_clip", "open_clip_state_dict"]

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

    A head, of a classifier or for boxes, is not part of it.
    """
    flat = not _custom_text(model)
    renamed: dict[str, Tensor] = {}
    for name, tensor in model.state_dict().items():
        if name.startswith(("head.", "detector.")):
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
    """open_clip's names, old and new, or ptft's, to ptft's; position embeddings fitted to size.

    Those of images are interpolated, as open_clip does it. Those of texts are cut, or go on with
    the model's own random rows: open_clip would interpolate them too, and change every embedding.

    Floating-point weights become float32. Weights without a logit bias get one of zero where the
    model has one, as open_clip does.
    """
    import_open_clip()
    from open_clip.convert import convert_state_dict
    from open_clip.model import resize_pos_embed

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
        _fit_text_positions(plain, model.text.positional_embedding.detach())
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
    shapes = {name: tuple(tensor.shape) for name, tensor in state.items()}
    check_fit(module.state_dict(), shapes, source=source)
    module.load_state_dict(dict(state), strict=True)


def check_fit(
    own: Mapping[str, Tensor], given: Mapping[str, tuple[int, ...]], *, source: str
) -> None:
    """Check that the names and shapes of weights are those of a module's state.

    Raises:
        ModelError: naming the weights that are missing, left over or of another shape.
    """
    missing = [name for name in own if name not in given]
    left_over = [name for name in given if name not in own]
    misshapen = [
        f"{name} {given[name]} for {tuple(own[name].shape)}"
        for name in own
        if name in given and given[name] != tuple(own[name].shape)
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


def _fit_text_positions(state: dict[str, Tensor], own_lw: Tensor) -> None:
    name = "text.positional_embedding"
    given_lw = state.get(name)
    if given_lw is None or given_lw.shape[1:] != own_lw.shape[1:]:
        return  # told of where the weights are loaded
    length = len(own_lw)
    state[name] = torch.cat([given_lw[:length], own_lw[len(given_lw) :].to(given_lw.dtype)])


def _visual(name: str) -> str:
    return "visual." + name.removeprefix("image.") if name.startswith("image.") else name


def _custom_text(model: DualEncoder) -> bool:
    """Whether open_clip's model of the architecture keeps the text tower under ``text``."""
    config = model.spec.config
    return bool(config.get("custom_text")) or "hf_model_name" in config["text_cfg"]


def _first(names: list[str]) -> str:
    shown = ", ".join(names[:_SHOWN])
    return shown if len(names) <= _SHOWN else f"{shown}, ... ({len(names)} in all)"
