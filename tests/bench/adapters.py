"""Adapters: what each kind costs on ViT-B-32, peft as it comes, and ONNX files of all of them.

1. Learned parameters and bytes of each kind with its default settings, counted on ViT-B-32.
2. peft's LoRA with ``all-linear`` on open_clip's own towers, as it comes, beside ptft's: adapter
   tensors that no gradient reaches on a batch.
3. Six kinds in the towers of three families, trained for two steps, merged where that is possible,
   written to ONNX and run by onnxruntime: the largest difference of an entry of a normalised
   embedding from the model as it was trained.
"""

import copy
import tempfile
import warnings
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from ptft.compat import import_open_clip
from ptft.export.graph import write_graph
from ptft.export.parity import run_apart
from ptft.export.towers import image_tower, text_tower
from ptft.model import DualEncoder, apply_adapt, merge
from ptft.model.adapt import adapter_names, rebuild
from ptft.model.towers import build_towers, projection
from ptft.recipe import (
    BottleneckAdapt,
    ClipObjective,
    DoraAdapt,
    Ia3Adapt,
    LoraAdapt,
    PrefixAdapt,
    ProjectionAdapt,
)
from ptft.recipe.adapt import Adapter
from tests.support import tiny
from tests.support.plain_step import TrainBatch, compute_objective

ADAPTERS: tuple[Adapter, ...] = (
    LoraAdapt(),
    DoraAdapt(),
    Ia3Adapt(),
    BottleneckAdapt(),
    PrefixAdapt(),
    ProjectionAdapt(),
)
BARS = {
    "LoRA of rank 8, share of ViT-B-32": ("<=", 0.01),
    "dead adapter tensors": ("<=", 0.0),
    "ONNX, largest difference": ("<=", 1e-5),
}


def run(*, smoke: bool = False) -> dict[str, float]:
    torch.set_num_threads(1)
    return {**_sizes(), **_against_peft(), **_onnx(ADAPTERS[:1] if smoke else ADAPTERS)}


def _sizes() -> dict[str, float]:
    config = import_open_clip().get_model_config("ViT-B-32")
    print(f"{'ViT-B-32':12} {'learned':>12} {'share':>8} {'bytes, float32':>15}")
    share = 0.0
    for adapt in ADAPTERS:
        model = tiny.build(tiny.arch_section())
        with torch.device("meta"):
            model.image, model.text = build_towers(config)
            whole = sum(p.numel() for p in (*model.image.parameters(), *model.text.parameters()))
            section = adapt.model_dump(mode="json")
            model.spec = model.spec.with_(adapter={"section": section, "base": ""})
            rebuild(model)
        learned = sum(model.get_parameter(name).numel() for name in adapter_names(model))
        if isinstance(adapt, ProjectionAdapt):
            parts = [*projection(model.image), *projection(model.text)]
            learned = sum(part.numel() for part in parts if isinstance(part, torch.Tensor))
        if adapt == LoraAdapt():
            share = learned / whole
        print(f"{adapt.kind:12} {learned:12,} {learned / whole:8.3%} {4 * learned:15,}")
    return {"LoRA of rank 8, share of ViT-B-32": share}


def _against_peft() -> dict[str, float]:
    from peft import LoraConfig, inject_adapter_in_model

    theirs = tiny.build(tiny.arch_section())
    config = LoraConfig(target_modules="all-linear", r=8, lora_alpha=16, lora_dropout=0.1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        inject_adapter_in_model(config, theirs.image)
        inject_adapter_in_model(config, theirs.text)
    ours = tiny.build(tiny.arch_section())
    roles: Any = ["q", "k", "v", "out", "fc1", "fc2"]
    apply_adapt(ours, LoraAdapt(targets=roles, dropout=0.1), ClipObjective())
    dead = {}
    for whose, model in (("peft", theirs), ("ptft", ours)):
        _loss(model).backward()
        names = [name for name, _ in model.named_parameters() if ".lora_" in name]
        dead[whose] = sum(model.get_parameter(name).grad is None for name in names)
        print(f"{whose}: {dead[whose]} of {len(names)} adapter tensors get no gradient")
    return {"dead adapter tensors": dead["ptft"], "dead adapter tensors of peft": dead["peft"]}


def _onnx(adapters: tuple[Adapter, ...]) -> dict[str, float]:
    worst = 0.0
    with tempfile.TemporaryDirectory() as folder:
        text = tiny.hf_text_folder(Path(folder) / "bert")
        section = tiny.hf_section(text, image="test_vit", image_size=48)
        models = {
            "open_clip": tiny.build(tiny.arch_section()),
            "timm and transformers": tiny.build(section),
        }
        print(f"{'ONNX against the trained model':40} {'image':>9} {'text':>9}")
        for name, base in models.items():
            _one_block(base)
            for adapt in adapters:
                found = _differences(copy.deepcopy(base), adapt, Path(folder))
                print(f"{name + ', ' + adapt.kind:40} {found[0]:9.1e} {found[1]:9.1e}")
                worst = max(worst, *found)
    return {"ONNX, largest difference": worst}


def _differences(model: DualEncoder, adapt: Adapter, folder: Path) -> tuple[float, float]:
    apply_adapt(model, adapt, ClipObjective())
    learning = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(learning, lr=0.05)
    for _ in range(2):
        optimizer.zero_grad()
        _loss(model).backward()
        optimizer.step()
    model.eval()
    towers = (image_tower(model), text_tower(model))
    inputs = (tiny.pictures(model), tiny.tokens(model)[:, :9])
    with torch.no_grad():
        trained = [
            F.normalize(tower.module(rows), dim=-1)
            for tower, rows in zip(towers, inputs, strict=True)
        ]
    merge(model)
    differences = []
    for make, rows, expected in zip((image_tower, text_tower), inputs, trained, strict=True):
        write_graph(make(model), folder / "tower.onnx")
        found = run_apart(folder / "tower.onnx", {"rows": rows.numpy()})["rows"]
        unit = F.normalize(torch.from_numpy(found), dim=-1)
        differences.append(float((unit - expected).abs().max()))
    return differences[0], differences[1]


def _loss(model: DualEncoder) -> torch.Tensor:
    model.train()
    texts = ["a red circle", "a photo of a cat", "a dog", "the sea"]
    batch = TrainBatch(tiny.pictures(model, 4), tiny.tokens(model, texts), torch.arange(4), None)
    return compute_objective(ClipObjective(), model, batch).loss


def _one_block(model: DualEncoder) -> None:
    """An export takes seconds a block."""
    if hasattr(model.image, "trunk"):
        model.image.trunk.blocks = model.image.trunk.blocks[:1]
        model.text.transformer.encoder.layer = model.text.transformer.encoder.layer[:1]
    else:
        for tower in (model.image, model.text):
            tower.transformer.resblocks = tower.transformer.resblocks[:1]
