"""The files of open_clip and of ptft itself, and what every library reads beside the weights."""

import copy
import shutil
from pathlib import Path

from safetensors.torch import save_file

from ptft.artifact import FolderFiles, write_json
from ptft.export.tokenizer_files import TOKENIZER_CONFIG, write_tokenizer_files
from ptft.model import DualEncoder, open_clip_state_dict, save_model
from ptft.model.spec import HF_TEXT, ModelSpec, save_spec
from ptft.model.store import OWN_WEIGHTS, save_hf_config
from ptft.recipe.publication import public_place

__all__ = ["portable", "write_head", "write_model_files"]


def write_model_files(model: DualEncoder, folder: Path) -> None:
    """Write weights, configurations, tokenizer and preprocessing.

    With ``open_clip_config.json`` and ``open_clip_model.safetensors`` where open_clip can express
    the model; else the weights are ``ptft_model.safetensors``, by ptft's names. ``model.json`` lets
    ptft build either again.
    """
    spec = model.spec
    config = spec.open_clip_config
    if config is None:
        save_model(model, folder, weights=OWN_WEIGHTS)
    else:
        save_spec(spec, folder)
        if "hf_model_name" in config["text_cfg"]:
            save_hf_config(model, folder / HF_TEXT)
        write_json(
            folder / FolderFiles.OPEN_CLIP_CONFIG,
            {"model_cfg": config, "preprocess_cfg": spec.preprocess.open_clip_config()},
        )
        tensors = {
            name: tensor.detach().cpu().contiguous().clone()
            for name, tensor in open_clip_state_dict(model).items()
        }
        save_file(tensors, folder / FolderFiles.OPEN_CLIP_WEIGHTS, metadata={"format": "pt"})
    write_tokenizer_files(spec, folder)
    if config is not None and config["text_cfg"].get("hf_tokenizer_name") == HF_TEXT:
        # open_clip's hf-hub: makes a tokenizer of what lies there, an empty one of nothing
        for path in (folder / FolderFiles.TOKENIZER, folder / TOKENIZER_CONFIG):
            if path.is_file():
                shutil.copy(path, folder / HF_TEXT)
    preprocessor = spec.preprocess.preprocessor_config()
    if preprocessor is not None:
        write_json(folder / FolderFiles.PREPROCESSOR, preprocessor)
    if model.head is not None:
        write_head(model, folder / FolderFiles.HEAD)


def portable(spec: ModelSpec) -> ModelSpec:
    """The specification without folders of this machine: of where the weights came from, the
    last part of the path, and a Hub id as it is.

    A transformers text tower that came from a local folder is named by its configuration inside
    the model folder, where open_clip finds it when it runs there.
    """
    if spec.base is not None:
        spec = spec.with_(base="; ".join(map(public_place, spec.base.split("; "))))
    if spec.open_clip_needs is None:
        return spec
    config = copy.deepcopy(dict(spec.config))
    config["text_cfg"].update(hf_model_name=HF_TEXT, hf_tokenizer_name=HF_TEXT)
    needs = f"this folder as its working directory, where it looks for `{HF_TEXT}`"
    return spec.with_(config=config, open_clip_needs=needs)


def write_head(model: DualEncoder, path: Path) -> None:
    """Write a classifier's ``weight`` (C, W) and ``bias`` (C,), as they are trained, and its cache
    if it has one; :meth:`ptft.model.classifier.Classifier.logits` says what they are for."""
    assert model.head is not None
    tensors = {
        name: tensor.detach().cpu().contiguous() for name, tensor in model.head.state_dict().items()
    }
    save_file(tensors, path, metadata={"format": "pt"})
