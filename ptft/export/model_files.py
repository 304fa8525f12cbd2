"""The files of open_clip and of ptft itself, and what every library reads beside the weights: the
tokenizer's such that transformers alone gives the ids that the model was trained on.

open_clip cleans a text before it tokenises it. What ``tokenizer.json`` can do of that is put into
it: HTML 4's entities are resolved, typographic quotes become plain ones, a run of white space one
space, and for SigLIP's vocabularies ASCII punctuation is dropped and the text lower-cased. Bytes
that were decoded wrongly are repaired by ptft and open_clip alone.

Names of special tokens in a text are read as open_clip reads them, after its cleaning. CLIP's marks
are found in what the normaliser leaves. Other vocabularies find theirs in the text as it came: a
name that no cleaned text holds (``</s>`` without its punctuation) is therefore none of those that
are looked for. These texts alone have other ids than here, beside those that are repaired:

- one with white space before or behind it, where the vocabulary counts that (``roberta``) and the
  text keeps its punctuation and its case: stripped here, it would be stripped beside a special
  token inside a text too;
- a special token of an ``hf`` vocabulary, its name written with HTML entities (``&lt;/s&gt;``),
  which open_clip resolves first; or, where texts are lower-cased but keep their punctuation, in
  upper case;
- a text that is such a name and nothing else, in other letter case (``</S>``), where the
  vocabulary lower-cases, in transformers.js;
- the name of one that has no number but as an added token, where no cleaned text holds it, in
  libraries that do not read ``split_special_tokens`` of ``tokenizer_config.json`` (transformers.js,
  ``tokenizers`` alone).

And one has the same ids and another embedding: a padding token that is written in a text is masked
by a transformers text tower here and in open_clip, and read in transformers, whose mask comes with
the ids.
"""

import copy
import json
import shutil
import string
from html.entities import name2codepoint
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from ptft.artifact import FolderFiles, write_json
from ptft.files.tensors import write_tensors
from ptft.model import DualEncoder, open_clip_state_dict, save_model
from ptft.model.spec import HF_TEXT, ModelSpec, save_spec
from ptft.model.store import OWN_WEIGHTS, save_hf_config
from ptft.preprocess import TextTokenizer
from ptft.preprocess.clip_vocabulary import OLD_MARKS
from ptft.recipe.publication import public_place

__all__ = [
    "TOKENIZER_CONFIG",
    "map_weights",
    "portable",
    "write_head",
    "write_model_files",
    "write_tokenizer_files",
]


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
        write_tensors(folder / FolderFiles.OPEN_CLIP_WEIGHTS, open_clip_state_dict(model))
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
    if model.detector is not None and config is not None:
        state = model.detector.state_dict()
        plain = {name: one.detach().cpu().contiguous() for name, one in state.items()}
        save_file(plain, folder / FolderFiles.DETECTOR, metadata={"format": "pt"})


@torch.no_grad()
def map_weights(model: DualEncoder, folder: Path) -> None:
    """Let the weights of a model whose files were just written be the pages of its file: the system
    reads them as they are needed, and has their memory back when it needs that.

    Args:
        model: contiguous weights of the types of the file; others stay where they are.
    """
    own = model.spec.open_clip_config is None
    path = folder / (OWN_WEIGHTS if own else FolderFiles.OPEN_CLIP_WEIGHTS)
    state = model.state_dict() if own else open_clip_state_dict(model)
    names = {tensor.data_ptr(): name for name, tensor in state.items()}
    with safe_open(path, framework="pt") as file:
        for weight in [*model.parameters(), *model.buffers()]:
            name = names.get(weight.data_ptr())
            if name is None or not weight.is_contiguous():
                continue
            mapped = file.get_tensor(name)
            if mapped.dtype == weight.dtype and mapped.numel() == weight.numel():
                weight.data = mapped.view(weight.shape)


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


TOKENIZER_CONFIG = "tokenizer_config.json"
_LOWERCASE = {"type": "Lowercase"}
_PUNCTUATION = "[" + "".join(f"\\{c}" if c in r"\]^-[" else c for c in string.punctuation) + "]"


def write_tokenizer_files(spec: ModelSpec, folder: Path) -> None:
    """Write ``tokenizer.json`` and ``tokenizer_config.json``."""
    text = _cleaning(spec.tokenizer)
    (folder / FolderFiles.TOKENIZER).write_text(text, encoding="utf-8")
    if spec.tokenizer_config:
        write_json(folder / TOKENIZER_CONFIG, _config(spec))


def _cleaning(tokenizer: TextTokenizer) -> str:
    """The tokenizer's JSON with its cleaning in front of its own normaliser, once."""
    if tokenizer.clean == "none":
        return tokenizer.json
    steps = _entities()
    steps += [_replace("[\u02bc\u2018-\u201b]", "'"), _replace("[\u201c-\u201f]", '"')]  # as ftfy
    if tokenizer.clean == "canonicalize":
        steps += [_replace("_", " "), _replace(_PUNCTUATION, "")]
    spaces: list[dict[str, Any]] = []
    if tokenizer.kind == "hf" and tokenizer.clean in ("canonicalize", "clip"):
        strip = {"type": "Strip", "strip_left": True, "strip_right": True}
        spaces = [_LOWERCASE, _replace(r"\s+", " "), strip]
    elif tokenizer.kind == "hf":
        spaces = [_replace(r"\s+", " ")]
    values = json.loads(tokenizer.json)
    own = values.get("normalizer") or {"type": "Sequence", "normalizers": []}
    before = own["normalizers"] if own["type"] == "Sequence" else [own]
    for done in (steps, spaces):  # by an export before
        if before[: len(done)] == done:
            before = before[len(done) :]
    if tokenizer.kind == "clip" and tokenizer.clean == "whitespace":
        before = [step for step in before if step != _LOWERCASE]
    values["normalizer"] = {"type": "Sequence", "normalizers": [*steps, *spaces, *before]}
    values["added_tokens"] = [
        token
        for token in values["added_tokens"]
        if tokenizer.may_hold(token["content"]) or not _in_vocabulary(token, values["model"])
    ]
    return json.dumps(values, ensure_ascii=False)


def _in_vocabulary(token: dict[str, Any], model: dict[str, Any]) -> bool:
    """Whether a token has its number without being named among the added ones."""
    words = model["vocab"]
    name, number = token["content"], token["id"]
    if isinstance(words, dict):
        return bool(words.get(name) == number)
    return bool(number < len(words) and words[number][0] == name)


def _entities() -> list[dict[str, Any]]:
    """What ``html.unescape`` does twice, to the names that HTML 4 has: 0.07 ms a text."""
    found = {f"&{name};": chr(point) for name, point in name2codepoint.items() if name != "amp"}
    found |= {"&apos;": "'", "&#39;": "'", "&#x27;": "'", "&#34;": '"'}
    ampersand = ("&amp;", "&")  # before the others and once more: "&amp;lt;" is "<"
    return [
        {"type": "Replace", "pattern": {"String": written}, "content": meant}
        for written, meant in (ampersand, *found.items(), ampersand)
    ]


def _replace(pattern: str, content: str) -> dict[str, Any]:
    return {"type": "Replace", "pattern": {"Regex": pattern}, "content": content}


def _config(spec: ModelSpec) -> dict[str, Any]:
    """``tokenizer_config.json`` that transformers 4.57 and 5 read alike.

    Classes for single vocabularies build the tokenizer anew in 5 and lose the cleaning; the general
    one takes ``tokenizer.json`` as it is. Where padding is part of what the text tower
    reads, no mask is handed to the model. The names given here are special tokens to transformers,
    and looked for in texts before they are cleaned: not so where no cleaned text holds one.
    """
    tokenizer = spec.tokenizer
    names = ["input_ids", "attention_mask"] if spec.text_trimmable else ["input_ids"]
    marks = {
        key: OLD_MARKS.get(value, value) if tokenizer.kind == "clip" else value
        for key, value in spec.tokenizer_config.items()
        if key.endswith("_token") and isinstance(value, str)
    }
    config: dict[str, Any] = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": tokenizer.context_length,
        "model_input_names": names,
        "padding_side": "left" if tokenizer.pad_left else "right",
        **marks,
    }
    if not any(tokenizer.may_hold(mark) for mark in marks.values()):
        config["split_special_tokens"] = True
    return config
