"""Small models built on the spot, for every test file that needs one.

Each of the four tower families has one: native ViT, native ResNet, timm with a native text tower,
timm with a transformers text tower; and a SigLIP-like one, whose text must not be trimmed.
"""

import json
import tempfile
from pathlib import Path
from typing import Any

import torch

from ptft.compat import import_open_clip, prepare_torchvision
from ptft.model import DualEncoder, build_model
from ptft.recipe import (
    ArchModel,
    ClipObjective,
    ModelSection,
    ObjectiveSection,
    TextTower,
    TowersModel,
)

_TEXT = {"context_length": 16, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2}
_VIT = {"image_size": 32, "layers": 2, "width": 64, "head_width": 32, "patch_size": 16}
_CONFIGS: dict[str, dict[str, Any]] = {
    "tiny-vit": {"embed_dim": 24, "quick_gelu": True, "vision_cfg": _VIT, "text_cfg": _TEXT},
    "tiny-resnet": {
        "embed_dim": 24,
        "vision_cfg": {"image_size": 32, "layers": [1, 1, 1, 1], "width": 8, "patch_size": None},
        "text_cfg": _TEXT,
    },
    "tiny-convnext": {  # a timm tower in open_clip's plain CLIP class, as convnext_base
        "embed_dim": 24,
        "vision_cfg": {
            "image_size": 64,
            "timm_model_name": "test_convnext",
            "timm_model_pretrained": False,
            "timm_pool": "",
            "timm_proj": "linear",
        },
        "text_cfg": _TEXT,
    },
    "tiny-siglip": {
        "embed_dim": 32,
        "init_logit_bias": -10,
        "custom_text": True,
        "vision_cfg": {
            "image_size": 160,
            "timm_model_name": "test_vit",
            "timm_model_pretrained": False,
            "timm_pool": "avg",
            "timm_proj": "linear",
        },
        "text_cfg": {
            **_TEXT,
            "no_causal_mask": True,
            "proj_bias": True,
            "pool_type": "last",
            "tokenizer_kwargs": {"clean": "canonicalize"},
        },
    },
    "tiny-padded-siglip": {  # as tiny as timm has one without a class token, which SigLIP lacks
        "embed_dim": 512,
        "init_logit_bias": -10,
        "custom_text": True,
        "vision_cfg": {
            "image_size": 256,
            "timm_model_name": "vit_medium_patch16_gap_256",
            "timm_model_pretrained": False,
            "timm_pool": "map",
            "timm_proj": "none",
        },
        "text_cfg": {
            **_TEXT,
            "no_causal_mask": True,
            "proj_bias": True,
            "pool_type": "last",
            "tokenizer_kwargs": {"clean": "canonicalize"},
        },
    },
    "tiny-coca": {
        "embed_dim": 24,
        "vision_cfg": _VIT,
        "text_cfg": {**_TEXT, "embed_cls": True},
        "multimodal_cfg": {**_TEXT},
    },
}
_registered = False


def arch_section(name: str = "tiny-vit", **values: Any) -> ArchModel:
    """A tiny architecture that open_clip knows by name in this process."""
    global _registered
    if not _registered:
        open_clip = import_open_clip()
        folder = Path(tempfile.mkdtemp(prefix="ptft-tiny-"))
        for key, config in _CONFIGS.items():
            (folder / f"{key}.json").write_text(json.dumps(config), encoding="utf-8")
        open_clip.add_model_config(folder)
        _registered = True
    return ArchModel(name=name, **values)


def register(name: str, config: dict[str, Any]) -> str:
    """Make open_clip know an architecture in this process; its name."""
    open_clip = import_open_clip()
    folder = Path(tempfile.mkdtemp(prefix="ptft-tiny-"))
    (folder / f"{name}.json").write_text(json.dumps(config), encoding="utf-8")
    open_clip.add_model_config(folder)
    return name


def towers_section(**values: Any) -> TowersModel:
    """A timm image tower of 0.3 M parameters (any size of picture) and a two-layer text tower."""
    defaults: dict[str, Any] = {
        "image": "test_efficientnet",
        "image_size": 32,
        "text": TextTower(width=32, layers=2, heads=2, context_length=16),
        "embed_dim": 24,
    }
    return TowersModel(**{**defaults, **values})


def hf_text_folder(folder: Path, kind: str = "bert", *, weights: bool = True) -> Path:
    """A transformers text model (``bert`` or ``roberta``) with a tokenizer, in a folder."""
    prepare_torchvision()  # transformers imports it
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import (
        BertConfig,
        BertModel,
        PreTrainedTokenizerFast,
        RobertaConfig,
        RobertaModel,
    )

    names = ["<s>", "<pad>", "</s>", "<unk>"]
    letters = [chr(point) for point in range(33, 127)]
    words = [*names, *letters, *(f"##{c}" for c in letters), "photo", "red", "circle", "cat"]
    tokenizer = Tokenizer(
        models.WordPiece({word: index for index, word in enumerate(words)}, unk_token="<unk>")
    )
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.BertProcessing(("</s>", 2), ("<s>", 0))
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        eos_token="</s>",
        cls_token="<s>",
        sep_token="</s>",
        pad_token="<pad>",
        unk_token="<unk>",
    ).save_pretrained(folder)
    sizes = {
        "vocab_size": len(words),
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 64,
        "max_position_embeddings": 40,
        "pad_token_id": 1,
        "hidden_dropout_prob": 0.1,
    }
    torch_state = torch.get_rng_state()
    torch.manual_seed(1)
    if kind == "bert":
        model = BertModel(BertConfig(**sizes))
    else:
        model = RobertaModel(RobertaConfig(**sizes))
    torch.set_rng_state(torch_state)
    if weights:
        model.save_pretrained(folder)
    else:
        model.config.save_pretrained(folder)
    return folder


def hf_section(folder: Path, **values: Any) -> TowersModel:
    """A timm image tower and the transformers text tower of a folder."""
    return towers_section(**{"text": str(folder), "context_length": 16, **values})


def build(
    section: ModelSection, objective: ObjectiveSection | None = None, *, seed: int = 0
) -> DualEncoder:
    """The model of a section, in eval mode."""
    return build_model(section, None, objective or ClipObjective(), seed=seed).eval()


def pictures(model: DualEncoder, count: int = 3, *, seed: int = 0) -> torch.Tensor:
    """Normalised noise of the model's size, float (count, 3, H, W)."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, 3, *model.spec.preprocess.size, generator=generator)


def tokens(model: DualEncoder, texts: list[str] | None = None) -> torch.Tensor:
    """int64 (B, context length) of a few short texts."""
    texts = texts or ["a red circle", "a photo of a cat", ""]
    return torch.from_numpy(model.spec.tokenizer(texts))
