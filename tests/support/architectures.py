"""Every architecture of open_clip at a size that takes a tenth of a second: the same structure,
with narrow and few layers, small pictures, and a handful of words in place of a vocabulary.
"""

import copy
import functools
import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from ptft.compat import import_open_clip, import_timm
from ptft.errors import ModelError
from ptft.export.library_files import Library, write_library_files
from ptft.export.model_files import write_model_files
from ptft.export.parity import make_golden
from ptft.model import DualEncoder
from ptft.model.source import describe_spec
from ptft.model.spec import HF_TEXT
from ptft.model.tokenizers import build_tokenizer
from ptft.model.towers import build_towers, refuse_unsupported
from ptft.preprocess import ImagePreprocess, TextTokenizer

__all__ = ["convert_all", "names", "small_model", "small_timm"]

_WIDTH, _WORDS = 32, 200
_VOCABULARY = "a photo of cat dog red circle to the left blue square sentence"
_VIT = {"embed_dim": _WIDTH, "depth": 2, "num_heads": 2, "img_size": 32, "patch_size": 16}
_PREFIXES: dict[str, dict[str, Any]] = {  # of timm's names -> what makes the network small
    "convnext": {"depths": (1, 1, 1, 1), "dims": (8, 16, 24, 32)},
    "eva": _VIT,
    "fastvit": {"layers": (1, 1, 1, 1), "embed_dims": (32, 32, 32, 32)},
    "swin": {"embed_dim": 8, "depths": (1, 1, 1, 1), "num_heads": (1, 2, 2, 2)},
    "vit_base_mci": {"depth": 1},
    "vit_pe": {**_VIT, "attn_pool_num_heads": 2},
    "vit": _VIT,
}
_SIDES = {"swin": 224, "vit_base_mci": 224, "convnext": 64, "vitamin": 64, "fastvit": 64}
_HF: dict[str, dict[str, Any]] = {  # of a text tower's name -> its configuration
    "roberta": {"model_type": "roberta", "max_position_embeddings": 40},
    "xlm-roberta": {"model_type": "xlm-roberta", "max_position_embeddings": 40},
    "mt5": {"model_type": "mt5", "d_model": _WIDTH, "d_kv": 16, "d_ff": 64, "num_heads": 2},
    "nllb": {"model_type": "m2m_100", "d_model": _WIDTH, "encoder_attention_heads": 2,
             "decoder_attention_heads": 2, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64,
             "encoder_layers": 1, "decoder_layers": 1},
}  # fmt: skip


def names() -> list[str]:
    """open_clip's own architectures; tests add tiny ones to its list."""
    return [name for name in import_open_clip().list_models() if not name.startswith("tiny-")]


@contextmanager
def small_timm() -> Iterator[None]:
    """timm makes small networks inside, for open_clip, for transformers and for its own loader."""
    import_timm()
    from timm.models import _factory

    plain = _factory.model_entrypoint
    _factory.model_entrypoint = lambda name: functools.partial(_make, plain(name), name)
    try:
        yield
    finally:
        _factory.model_entrypoint = plain


def small_model(name: str, folder: Path) -> DualEncoder:
    """A small model of an architecture, random but for norms and scales that would hide mistakes;
    inside :func:`small_timm`.

    Raises:
        ModelError: ptft does not support the architecture.
    """
    config = copy.deepcopy(import_open_clip().get_model_config(name))
    refuse_unsupported(name, config)
    vision, text = config["vision_cfg"], config["text_cfg"]
    embed_dim, text_width = config["embed_dim"], text.get("width")
    config["embed_dim"] = 24 if vision.get("timm_proj") != "none" else _WIDTH
    _reduce_vision(vision)
    hf_folder = _reduce_text(text, folder)
    if "width" in text:
        text["width"] = config["embed_dim"] if text_width == embed_dim else 16
    torch.manual_seed(0)
    image, tower = build_towers(config, hf_folder=hf_folder)
    size = ImagePreprocess.from_config({"size": image.image_size})
    spec = describe_spec(name, config, tower, _tokenizer(text, config), size)
    model = DualEncoder(image, tower, spec, logit_bias=config.get("init_logit_bias"))
    _stir(model)
    return model.eval()


def convert_all(folder: Path, wanted: Iterable[str]) -> dict[str, dict[str, Library]]:
    """architecture -> library -> what an export found of its small form, held to the model's own
    embeddings, of those that are wanted; what ptft does not support is left out.

    Architectures whose small forms are the same are exported once.
    """
    found: dict[str, dict[str, Library]] = {}
    done: dict[str, dict[str, Library]] = {}
    with small_timm():
        for name in wanted:
            place = folder / name
            try:
                model = small_model(name, place)
            except ModelError:
                assert "multimodal_cfg" in import_open_clip().get_model_config(name)
                continue
            key = json.dumps(dict(model.spec.config), sort_keys=True)
            if key not in done:
                (place / "out").mkdir(parents=True)
                write_model_files(model, place / "out")
                done[key] = write_library_files(model, make_golden(model), place / "out")
            found[name] = done[key]
    return found


def _make(create: Any, name: str, **arguments: Any) -> Any:
    small = next((x for prefix, x in _PREFIXES.items() if name.startswith(prefix)), {})
    if name.startswith("vitamin"):
        small = _vitamin()
    return create(**{**small, **arguments})


def _vitamin() -> dict[str, Any]:
    from timm.models.vitamin import VitCfg, VitConvCfg

    stages = VitCfg(
        embed_dim=(8, 16, _WIDTH),
        depths=(1, 1, 1),
        stem_width=8,
        conv_cfg=VitConvCfg(norm_layer="layernorm2d", norm_eps=1e-6),
        head_type="1d",
    )
    return {"embed_dim": _WIDTH, "depth": 1, "num_heads": 2, "img_size": 64, "embed_cfg": stages}


def _reduce_vision(vision: dict[str, Any]) -> None:
    timm = vision.get("timm_model_name")
    if timm is not None:
        side = next((side for prefix, side in _SIDES.items() if timm.startswith(prefix)), 32)
        vision["image_size"] = side
    elif isinstance(vision["layers"], list):
        vision.update(image_size=32, layers=[1, 1, 1, 1], width=8)
    else:
        vision.update(image_size=32, layers=2, width=_WIDTH, head_width=16, patch_size=16)


def _reduce_text(text: dict[str, Any], folder: Path) -> Path | None:
    """A small text tower; the folder of a configuration where it is one of transformers."""
    text["context_length"] = min(text.get("context_length", 77), 16)
    if "hf_model_name" in text:
        kind = next(kind for kind in reversed(_HF) if kind in text["hf_model_name"])
        values = {
            "vocab_size": _WORDS,
            "hidden_size": _WIDTH,
            "num_hidden_layers": 1,
            "num_layers": 1,
            "num_attention_heads": 2,
            "intermediate_size": 64,
            "pad_token_id": 1,
            **_HF[kind],
        }
        (folder / HF_TEXT).mkdir(parents=True, exist_ok=True)
        (folder / HF_TEXT / "config.json").write_text(json.dumps(values))
        text.setdefault("hf_proj_type", "linear")  # widths that are the same no longer are
        return folder / HF_TEXT
    text.update(layers=2, heads=2)
    if text.get("hf_tokenizer_name"):
        text["vocab_size"] = _WORDS
    return None


def _tokenizer(text: dict[str, Any], config: dict[str, Any]) -> tuple[TextTokenizer, dict]:
    if not text.get("hf_tokenizer_name"):
        return build_tokenizer(config)
    end = int(text.get("eos_id", 2))  # where the tower looks for it
    marks = ["<s>", "<pad>", "</s>", "<unk>"] if end == 2 else ["<pad>", "</s>", "<s>", "<unk>"]
    words = [*marks, *_VOCABULARY.split()]
    tokenizer = Tokenizer(
        models.WordLevel({word: index for index, word in enumerate(words)}, unk_token="<unk>")
    )
    tokenizer.add_special_tokens(marks)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.BertProcessing(
        ("</s>", words.index("</s>")), ("<s>", words.index("<s>"))
    )
    reader = TextTokenizer(
        tokenizer.to_str(),
        context_length=text["context_length"],
        kind="hf",
        clean=(text.get("tokenizer_kwargs") or {}).get("clean", "whitespace"),
        pad_id=words.index("<pad>"),
    )
    tokens = {"pad_token": "<pad>", "unk_token": "<unk>", "eos_token": "</s>"}
    return reader, {"tokenizer_class": "T5Tokenizer", **tokens}


def _stir(model: DualEncoder) -> None:
    """Random norms, biases and scales: what starts at one or zero would hide that it was lost."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim <= 1:
                parameter.add_(torch.randn_like(parameter), alpha=0.1)
        for module in model.modules():
            if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
                module.running_mean.normal_(0, 0.1)
                module.running_var.uniform_(0.5, 1.5)
