"""A model of each kind with the run folder that it came from, really exported."""

import importlib.util
import re
from pathlib import Path

import torch
import torch.nn.functional as F

from ptft.artifact import (
    RunFiles,
    write_json,
)
from ptft.export import export_model
from ptft.model import DualEncoder, save_model
from ptft.recipe import Recipe
from ptft.recipe.load import parse_recipe
from ptft.runs.folder import RunStatus, start_run, write_run
from tests.support import tiny

__all__ = ["KINDS", "NATIVE", "Exported", "build", "installed", "make_run", "python_blocks"]

NATIVE = "classify"  # a native ViT with a classifier's head and a Tip-Adapter's cache
KINDS = (NATIVE, "hf", "tiny-siglip", "padded")


def build(kind: str, work: Path) -> DualEncoder:
    if kind == "hf":
        return tiny.build(tiny.hf_section(tiny.hf_text_folder(work / "text-tower")))
    if kind == "padded":  # open_clip's configuration has no place for pad_type
        return tiny.build(tiny.towers_section(image_args={"pad_type": "same"}))
    model = tiny.build(tiny.arch_section("tiny-vit" if kind == NATIVE else kind))
    if kind == NATIVE:
        generator = torch.Generator().manual_seed(0)
        rows = torch.randn(3, model.spec.embed_dim, generator=generator)
        model.set_head(rows, ["red", "it's blue", "green"], ["a {} thing"])
        assert model.head is not None
        with torch.no_grad():
            model.head.bias.copy_(torch.tensor([0.5, -0.5, 0.0]))
        keys = torch.randn(4, model.spec.embed_dim, generator=generator)
        model.head.remember(F.normalize(keys), torch.tensor([0, 2, 1, 2]), alpha=3.0, beta=2.0)
    return model


def make_run(model: DualEncoder, folder: Path) -> Path:
    """A finished run folder, as training leaves it."""
    values = {
        "name": "tiny-run",
        "model": {"name": "ViT-B-32"},
        "data": {"kind": "shards", "train": "/data/secret/place/birds-{000..003}.tar"},
        "optim": {"samples_seen": 64, "global_batch": 8, "precision": "fp32"},
        "run": {"dir": str(folder)},
    }
    recipe: Recipe = parse_recipe(values, where="test")
    record = start_run(folder, recipe, device="cpu", total=64)
    save_model(model, folder / RunFiles.FINAL)
    record.status = RunStatus.FINISHED
    write_run(folder, record)
    retrieval = {"i2t_recall@1": 0.4321987, "images": 256, "skipped": 1, "skipped_samples": ["x"]}
    write_json(folder / RunFiles.METRICS, {"retrieval": retrieval})
    return folder


class Exported:
    def __init__(self, kind: str, work: Path) -> None:
        self.kind = kind
        self.model = build(kind, work)
        self.run = make_run(self.model, work / "run")
        self.folder = work / "out" / "model"
        self.info = export_model(self.run, self.folder)


def python_blocks(card: str) -> dict[str, str]:
    """heading -> its Python, one block after the other where there are several."""
    sections = re.split(r"^### (.*)$", card, flags=re.M)[1:]
    found = {
        name: "".join(re.findall(r"```python\n(.*?)```", text, re.S))
        for name, text in zip(sections[::2], sections[1::2], strict=True)
    }
    return {name: code for name, code in found.items() if code}


def installed(project: str) -> bool:
    return importlib.util.find_spec(project.replace("-", "_").split("_onnx")[0]) is not None
