"""A model from a recipe: the architecture, the weights it starts from, what the objective adds."""

import copy
import math
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ptft.artifact import RunFiles
from ptft.compat import import_open_clip
from ptft.errors import ModelError, RecipeError, suggest
from ptft.model.encoder import DualEncoder
from ptft.model.names import fit_state_dict, from_open_clip
from ptft.model.pretrained import Pretrained, check_pretrained, find_pretrained
from ptft.model.source import describe_spec, load_model, load_untrained
from ptft.model.spec import ModelSpec
from ptft.model.timm_tower import build_timm_config, image_weights, load_image_weights
from ptft.model.tokenizers import build_tokenizer
from ptft.model.towers import build_towers, refuse_unsupported, resize_timm, seeded
from ptft.model.transformers_tower import (
    TransformersText,
    check_context,
    find_text,
    load_text_weights,
)
from ptft.model_source import Checkpoint, resolve
from ptft.preprocess import ImagePreprocess
from ptft.preprocess.decoding import READING
from ptft.recipe import (
    ArchModel,
    ClipObjective,
    DetectObjective,
    InitSection,
    ModelSection,
    ObjectiveSection,
    SelfSupervisedObjective,
    SiglipObjective,
    TextTower,
    TowersModel,
)

__all__ = ["build_model", "check_pretrained"]

_CLIP_VOCABULARY = 49408


def build_model(
    section: ModelSection | None,
    init: InitSection | None,
    objective: ObjectiveSection,
    *,
    seed: int,
) -> DualEncoder:
    """The model that a recipe starts from, in train mode, on the CPU, in float32.

    Args:
        section: an architecture, or towers; None where ``init`` is given.
        init: an artefact whose model is taken as it is.
        objective: sets the logit scale and bias of a model whose joint space is new.
        seed: of the random weights; the same seed gives the same weights, and the global random
            state is neither read nor changed.

    Raises:
        RecipeError: an architecture or a tag that does not exist, before any weights are built.
        ModelError: parts or weights that do not fit together, naming them.
        HubError: weights cannot be fetched.
    """
    if init is not None and not init.weights:
        model, fresh = load_untrained(init.from_, seed=seed), True
    elif init is not None:
        model = load_model(init.from_)
        model.spec = model.spec.with_(base=_label(init.from_))
        fresh = False
    elif isinstance(section, ArchModel):
        model = _from_architecture(section, seed)
        fresh = section.pretrained is None
    elif isinstance(section, TowersModel):
        model, fresh = _from_towers(section, seed), True
    else:
        raise RecipeError("model: missing; give a model section or init.from")
    _fit_objective(model, objective, fresh=fresh)
    return model.train()


def _from_architecture(section: ArchModel, seed: int) -> DualEncoder:
    open_clip = import_open_clip()
    config = open_clip.get_model_config(section.name)
    if config is None:
        known = suggest(section.name, open_clip.list_models())
        raise RecipeError(f"model.name: {section.name!r}: not an architecture; {known}")
    refuse_unsupported(section.name, config)
    pretrained = find_pretrained(section)
    timm = "timm_model_name" in config["vision_cfg"]
    if section.image_size is not None and not timm:
        config["vision_cfg"]["image_size"] = section.image_size
    if section.context_length is not None:
        config["text_cfg"]["context_length"] = section.context_length
    if pretrained is not None and pretrained.quick_gelu is not None:
        # weights that were trained with QuickGELU lose several points with GELU, silently
        config["quick_gelu"] = pretrained.quick_gelu
    with seeded(seed):
        image, text = build_towers(config)
    bias = config.get("init_logit_bias")
    preprocess_cfg = pretrained.preprocess if pretrained is not None else {}
    spec = describe_spec(
        section.name,
        config,
        text,
        build_tokenizer(config),
        ImagePreprocess.from_config({**preprocess_cfg, "size": image.image_size}, unsaid=READING),
        base=pretrained.label if pretrained is not None else None,
        aligned=pretrained is not None,
    )
    _check_context(section, spec, text)
    model = DualEncoder(image, text, spec, logit_bias=bias)
    if pretrained is not None:
        _load(model, pretrained)
    if section.image_size is not None and timm:
        _resize(model, section.image_size)
    return model


def _check_context(section: ArchModel, spec: ModelSpec, text: Any) -> None:
    """Whether the text tower can take ``model.context_length``, if the recipe names one."""
    if section.context_length is None:
        return
    if hasattr(text, "config"):
        check_context(section.context_length, text.config.to_dict(), section.name)
    if section.pretrained is not None and not spec.text_trimmable:
        raise ModelError(
            f"model.context_length: {section.context_length}: the text tower of {section.name} "
            "attends to padding or pools at the last position, so that trained weights hold at "
            "their own length alone; allowed: null, or model.pretrained null"
        )


def _load(model: DualEncoder, pretrained: Pretrained) -> None:
    state = from_open_clip(pretrained.read(), model)
    if "logit_bias" in state and model.logit_bias is None:
        model.logit_bias = nn.Parameter(torch.zeros(1))
    fit_state_dict(model, state, source=f"model.pretrained: {pretrained.label}")


def _resize(model: DualEncoder, size: int) -> None:
    with seeded(0):
        new = resize_timm(model.image, size)
    model.image.image_size = (size, size)
    config = copy.deepcopy(dict(model.spec.config))
    config["vision_cfg"]["image_size"] = size
    preprocess = ImagePreprocess.from_config({**model.spec.preprocess.to_config(), "size": size})
    model.spec = model.spec.with_(
        config=config,
        preprocess=preprocess,
        timm_input_size=new,
        open_clip_reason=_reason(model.spec.image_args, new),
    )


def _from_towers(section: TowersModel, seed: int) -> DualEncoder:
    weights = image_weights(section)
    hf = None if isinstance(section.text, TextTower) else find_text(section)
    config = _towers_config(section, hf)
    refuse_unsupported("model", config)
    with seeded(seed):
        image, text = build_towers(
            config, image_args=section.image_args, hf_folder=hf.folder if hf else None
        )
        _check_widths(section, image, text)
        bases = [load_image_weights(image, weights)] if weights is not None else []
        size = resize_timm(image, section.image_size)
        if hf is not None and section.text_weights:
            bases.append(load_text_weights(text, hf))
    spec = describe_spec(
        _name(section, hf),
        config,
        text,
        build_tokenizer(config, folder=hf.folder if hf else None),
        ImagePreprocess(size=(section.image_size,) * 2, mean=section.mean, std=section.std),
        image_args=dict(section.image_args),
        timm_input_size=size,
        open_clip_reason=_reason(section.image_args, size) or _cleaning_reason(section),
        open_clip_needs=f"the folder {hf.name} of the text tower" if hf and hf.local else None,
        base="; ".join(bases) or None,
        aligned=False,  # weights of either tower know nothing of the other
    )
    return DualEncoder(image, text, spec)


def _towers_config(section: TowersModel, hf: TransformersText | None) -> dict[str, Any]:
    """open_clip's ``model_cfg`` of two towers."""
    text: dict[str, Any]
    if hf is not None:
        projection = None if section.text_projection == "none" else section.text_projection
        text = {
            "hf_model_name": hf.name,
            "hf_tokenizer_name": hf.name,
            "hf_proj_type": projection,
            "hf_pooler_type": section.text_pool,
            "context_length": section.context_length,
        }
        if section.text_clean == "none":
            text["tokenizer_kwargs"] = {"clean": "none"}
    else:
        assert isinstance(section.text, TextTower)
        if section.text_projection == "mlp":
            raise ModelError(
                "model.text_projection: 'mlp': open_clip's text transformer has none; "
                "allowed: linear, none"
            )
        text = {
            "context_length": section.text.context_length,
            "vocab_size": _CLIP_VOCABULARY,
            "width": section.text.width,
            "heads": section.text.heads,
            "layers": section.text.layers,
            "proj_type": section.text_projection,
        }
    return {
        "embed_dim": section.embed_dim,
        "custom_text": True,
        "vision_cfg": build_timm_config(section),
        "text_cfg": text,
    }


def _check_widths(section: TowersModel, image: Any, text: Any) -> None:
    """Without a projection a tower's own width has to be the joint one."""
    width = getattr(image.trunk, "head_hidden_size", None) or image.trunk.num_features
    if section.image_projection != "none" and width != image.trunk.num_features:
        raise ModelError(
            f"model.image: {section.image!r}: {image.trunk.num_features} features before a layer "
            f"that makes them {width} after pooling; open_clip's projection expects the former. "
            f"allowed: image_projection none with embed_dim {width}, or another architecture"
        )
    if section.image_projection == "none" and width != section.embed_dim:
        raise ModelError(
            f"model.embed_dim: {section.embed_dim}; with image_projection none allowed: "
            f"{width}, the width of {section.image}"
        )
    if section.text_projection == "none":
        width = text.width if hasattr(text, "width") else text.config.hidden_size
        if width != section.embed_dim:
            raise ModelError(
                f"model.embed_dim: {section.embed_dim}; with text_projection none allowed: "
                f"{width}, the width of the text tower"
            )


def _reason(image_args: Any, timm_input_size: tuple[int, int] | None) -> str | None:
    """Why open_clip's configuration cannot express an image tower."""
    if image_args:
        given = ", ".join(f"{key}: {value}" for key, value in image_args.items())
        return f"it has no place for arguments of the timm tower ({given})"
    if timm_input_size is not None:
        height, width = timm_input_size
        return (
            f"it builds a timm tower at the tower's own size and not at {height}x{width}, "
            "so the position embeddings would not fit"
        )
    return None


def _cleaning_reason(section: TowersModel) -> str | None:
    if section.text_clean == "none":
        return "it cleans every text, and this model reads texts as they are (text_clean: none)"
    return None


def _name(section: TowersModel, hf: TransformersText | None) -> str:
    if hf is not None:
        text = hf.title.rpartition("/")[2]
    else:
        assert isinstance(section.text, TextTower)
        text = f"text{section.text.width}x{section.text.layers}"
    return f"{section.image}+{text}"


def _label(source: str) -> str:
    """A Hub id as it is; of a path only the last part, since a card has no use for the rest; of a
    checkpoint also its run's name."""
    match resolve(source):
        case Checkpoint(folder, Path() as run, label) if folder.parent.name == RunFiles.CHECKPOINTS:
            return f"{run.resolve().name} {label}"
        case found:
            return found.label


def _fit_objective(model: DualEncoder, objective: ObjectiveSection, *, fresh: bool) -> None:
    """Logit scale, bias and head as the objective needs them.

    A model whose joint space is new starts from the objective's values; one that was trained keeps
    its own, and only what it lacks is added.
    """
    if isinstance(objective, SiglipObjective) and (fresh or model.logit_bias is None):
        model.logit_bias = nn.Parameter(torch.full((1,), objective.init_bias))
    elif fresh and not isinstance(objective, SiglipObjective):
        model.logit_bias = None
    if fresh and isinstance(objective, ClipObjective | SiglipObjective):
        with torch.no_grad():
            model.logit_scale.fill_(math.log(1 / objective.init_temperature))
    if isinstance(objective, ClipObjective | SiglipObjective | SelfSupervisedObjective):
        model.drop_head()  # and the classes that the start was trained on
    config = copy.deepcopy(dict(model.spec.config))
    config.pop("init_logit_bias", None)
    if model.logit_bias is not None:
        config["init_logit_bias"] = float(model.logit_bias.detach())
    together = isinstance(objective, ClipObjective | SiglipObjective | DetectObjective)
    model.spec = model.spec.with_(config=config, aligned=together or model.spec.aligned)
