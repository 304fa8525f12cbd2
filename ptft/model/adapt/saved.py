"""An adapter in a folder of its own, and back on the base that it belongs to.

``adapter.safetensors`` holds every tensor that learned, and what the adapted model makes of the
reference inputs; ``adapter.json`` the kind, its settings, and the digest and source of the base.
"""

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from ptft.artifact import read_json, write_json
from ptft.errors import AdaptError
from ptft.files.atomic import shareable
from ptft.files.bounds import Bounds, shown
from ptft.model.adapt.attach import adapter_names, adapter_section, attach, base_digest
from ptft.model.adapt.reference import Reference, check_merged, reference_outputs
from ptft.model.encoder import DualEncoder
from ptft.model.foreign import read_safetensors
from ptft.model_record import MAX_CLASSES, MAX_TEXT, check_thresholds

__all__ = ["ADAPTER", "ADAPTER_WEIGHTS", "load_adapter", "read_reference", "save_adapter"]

ADAPTER = "adapter.json"
ADAPTER_WEIGHTS = "adapter.safetensors"
_FORMAT = 1
_KEYS = ("format", "section", "base", "classes", "templates", "reads", "thresholds")
_IMAGES, _TEXTS = "reference/images", "reference/texts"
_SHOWN = 6  # names in a message


def save_adapter(model: DualEncoder, folder: Path) -> None:
    """Write what learned of an adapted model that is not merged yet.

    Raises:
        AdaptError: the model carries no adapter.
    """
    adapter = model.spec.adapter
    if adapter is None:
        raise AdaptError(f"{model.spec.name}: carries no adapter to save")
    folder.mkdir(parents=True, exist_ok=True)
    learned = set(adapter_names(model)) | {
        n for n, p in model.named_parameters() if p.requires_grad
    }
    tensors = {
        name: tensor.detach().cpu().contiguous()
        for name, tensor in model.state_dict().items()
        if name in learned
    }
    reference = reference_outputs(model)
    tensors |= {_IMAGES: reference.images, _TEXTS: reference.texts}
    save_file(tensors, folder / ADAPTER_WEIGHTS, metadata={"format": "pt"})
    shareable(folder / ADAPTER_WEIGHTS)
    write_json(
        folder / ADAPTER,
        {
            "format": _FORMAT,
            "section": adapter["section"],
            "base": {"digest": adapter["base"], "source": model.spec.base, "name": model.spec.name},
            "classes": list(model.spec.classes),
            "templates": list(model.spec.templates),
            "reads": model.spec.reads,
            **({} if model.spec.thresholds is None else {"thresholds": model.spec.thresholds}),
        },
    )


def load_adapter(base: DualEncoder, folder: Path) -> DualEncoder:
    """Put a saved adapter on its base, in place; :func:`merge` then makes it a plain model.

    Returns:
        The model, in eval mode.

    Raises:
        ArtifactError: a file is absent.
        AdaptError: it belongs to another base, its tensors do not fit, or the adapted model does
            not give the embeddings that it gave when it was saved.
    """
    values = _read(folder)
    section = adapter_section(values)
    digest = base_digest(base)
    if digest != values["base"]["digest"]:
        source = values["base"]["source"] or values["base"]["name"]
        raise AdaptError(
            f"{folder}: an adapter of {source} (weights {values['base']['digest'][:12]}); "
            f"this model is {base.spec.base or base.spec.name} (weights {digest[:12]})"
        )
    state = read_safetensors(folder / ADAPTER_WEIGHTS)
    reference = _reference(state, folder)
    attach(base, section, seed=0)
    if "head.weight" in state:
        reads = values.get("reads", "image")  # absent in adapters from before there was a choice
        base.set_head(
            state["head.weight"],
            values["classes"],
            values["templates"],
            reads=reads,
            thresholds=values.get("thresholds"),
        )
    if "logit_bias" in state and base.logit_bias is None:
        base.logit_bias = nn.Parameter(torch.zeros(1, device=base.device))
    own = base.state_dict()
    missing = [name for name in adapter_names(base) if name not in state]
    strange = [n for n, t in state.items() if n not in own or own[n].shape != t.shape]
    for what, names in (("missing", missing), ("left over or of another shape", strange)):
        if names:
            shown = ", ".join(names[:_SHOWN])
            raise AdaptError(f"{folder / ADAPTER_WEIGHTS}: {what}: {shown}")
    base.load_state_dict(state, strict=False)
    base.eval()
    check_merged(reference, base, what=f"{folder}: the adapter on this base")
    return base


def read_reference(folder: Path) -> Reference:
    """What the adapted model made of the reference inputs when the adapter was saved.

    Raises:
        ArtifactError, AdaptError: a file is absent or damaged.
    """
    return _reference(read_safetensors(folder / ADAPTER_WEIGHTS), folder)


def _read(folder: Path) -> Any:
    values = read_json(folder / ADAPTER)
    if not isinstance(values, dict) or values.get("format") != _FORMAT:
        found = values.get("format") if isinstance(values, dict) else values
        raise AdaptError(f"{folder / ADAPTER}: format {shown(found)}; this ptft reads {_FORMAT}")
    bounds = Bounds(values, str(folder / ADAPTER), AdaptError)
    bounds.keys(_KEYS, ("section", "base"))
    base = Bounds(values["base"], f"{folder / ADAPTER}: base", AdaptError)
    base.keys(("digest", "source", "name"), ("digest", "source", "name"))
    base.text("digest", 64)
    for key in ("source", "name"):
        base.text(key, MAX_TEXT, none=True)
    for key in ("classes", "templates"):
        bounds.texts(key, MAX_CLASSES, MAX_TEXT)
    bounds.choice("reads", ("image", "text", "both"))
    if "thresholds" in values:
        check_thresholds(values, bounds)
    return {"classes": [], "templates": [], **values}


def _reference(state: dict[str, Tensor], folder: Path) -> Reference:
    try:
        return Reference(state.pop(_IMAGES), state.pop(_TEXTS))
    except KeyError as error:
        raise AdaptError(f"{folder / ADAPTER_WEIGHTS}: no {error.args[0]}") from None
