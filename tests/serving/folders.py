"""Model folders for the tests of the service: tiny models with random weights, really exported."""

from pathlib import Path

import torch
from safetensors.torch import save_file

from ptft.artifact import FolderFiles, ModelInfo, hash_files, write_model_info
from ptft.export.golden import make_golden, save_golden
from ptft.export.towers import write_towers
from ptft.model import DualEncoder
from tests import tiny

CLASSES = ("cat", "dog", "red circle")


def make_model() -> DualEncoder:
    """A tiny native CLIP with a head of random rows: a classifier, which embeds as well."""
    model = tiny.build(tiny.arch_section("tiny-vit"), seed=3)
    generator = torch.Generator().manual_seed(4)
    rows = torch.randn(len(CLASSES), model.spec.embed_dim, generator=generator)
    model.set_head(rows / rows.norm(dim=-1, keepdim=True), CLASSES, ["a {}", "{}!"])
    assert model.head is not None
    with torch.no_grad():
        model.head.bias.copy_(torch.randn(len(CLASSES), generator=generator))
    return model.eval()


def write_folder(model: DualEncoder, folder: Path, name: str = "tiny") -> ModelInfo:
    folder.mkdir(parents=True)
    spec = model.spec
    write_towers(model, folder)
    save_golden(make_golden(model), folder / FolderFiles.GOLDEN)
    spec.tokenizer.save(folder / FolderFiles.TOKENIZER)
    if model.head is not None:
        head = {"weight": model.head.weight.detach(), "bias": model.head.bias.detach()}
        save_file(head, folder / FolderFiles.HEAD)
    info = ModelInfo(
        name=name,
        task="embed" if model.head is None else "classify",
        embed_dim=spec.embed_dim,
        context_length=model.context_length,
        image_size=spec.preprocess.size,
        logit_scale=model.logit_scale.exp().item(),
        logit_bias=0.0,
        recipe_digest="",
        weights_digest="0" * 64,
        tokenizer=spec.tokenizer.kwargs(),
        preprocess=spec.preprocess.to_config(),
        classes=list(spec.classes),
        templates=list(spec.templates),
        files=hash_files(folder),
    )
    write_model_info(folder, info)
    return info
