"""Comparisons of a few seconds."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ptft.artifact import RunFiles
from ptft.compare.gathered import Arm
from ptft.compare.recommend import Recommendation, recommend
from ptft.compare.results import Cell, Costs
from ptft.model import save_model
from ptft.recipe import Comparison
from ptft.recipe.load import load_comparison
from tests.support.tiny import build, towers_section


def comparison(folder: Path, **section: Any) -> Comparison:
    """Drawn scenes from an untrained start; ``section`` changes ``compare``."""
    if not (folder / "base").exists():
        save_model(build(towers_section()), folder / "base")
    small = {"kind": "scenes", "size": 32, "train": 32, "val": 16, "test": 16}
    values = {
        "name": "tiny",
        "init": {"from": str(folder / "base")},
        "data": small,
        "objective": {"kind": "clip"},
        "optim": {"samples_seen": 16, "global_batch": 8, "lr": 1e-3, "precision": "fp32"},
        "evaluate": [{"kind": "retrieval", "name": "target", "ks": [1, 5]}],
        "run": {"dir": str(folder / "run"), "device": "cpu"},
        "compare": {
            "arms": [{"kind": "zero_shot"}, {"kind": "full"}],
            "budgets": [8],
            "seeds": 2,
            "trials": 2,
            "wise": [0.5],
            "metric": "i2t_recall@5",
            "retain": [
                {
                    "kind": "retrieval",
                    "name": "before",
                    "ks": [5],
                    "data": {**small, "style": "line"},
                }
            ],
            **section,
        },
    }
    path = folder / "comparison.yaml"
    path.write_text(json.dumps(values))
    return load_comparison(path)


def from_run(asked: Comparison, start: Path, data: dict[str, Any], **more: Any) -> Comparison:
    """From a run whose record says that it learned from ``data``; its weights are not there."""
    (start / RunFiles.FINAL).mkdir(parents=True)
    (start / RunFiles.RUN).write_text("{}")
    values = {
        "name": "start",
        "model": {"image": "test_resnet", "text": {"width": 32, "layers": 1, "heads": 1}},
        "data": data,
        "objective": {"kind": "clip"},
        "optim": {"samples_seen": 64, "global_batch": 8},
        "evaluate": [{"kind": "retrieval", "split": "val"}],
        **more,
    }
    (start / RunFiles.RECIPE).write_text(json.dumps(values))
    assert asked.init is not None
    return asked.model_copy(update={"init": asked.init.model_copy(update={"from_": str(start)})})


def measured(folder: Path) -> Any:
    """Everything measured of a comparison, without what depends on the machine's load."""
    cells = [json.loads(path.read_text()) for path in sorted((folder / "cells").iterdir())]
    for cell in cells:
        for name in (
            "cpu_seconds",
            "search_cpu_seconds",
            "wall_seconds",
            "gpu_seconds",
            "peak_bytes",
        ):
            del cell["costs"][name]
        for trial in cell["trials"]:
            del trial["cpu_seconds"]
    return cells


def write_colours(folder: Path) -> Path:
    """Red and green pictures, four of each in each split, and an untrained model as ``base``."""
    rng = np.random.default_rng(0)
    for split in ("train", "val", "test"):
        for channel, name in enumerate(("red", "green")):
            (folder / split / name).mkdir(parents=True)
            for number in range(4):
                pixels = rng.integers(0, 120, (32, 32, 3), np.uint8)
                pixels[..., channel] += 130
                Image.fromarray(pixels).save(folder / split / name / f"{number}.png")
    save_model(build(towers_section()), folder / "base")
    return folder


def cell(
    arm: str,
    val: float,
    *,
    test: float | None = None,
    budget: int = 64,
    seed: int = 0,
    kept: float = 1.0,
    flops: float = 1.0,
    queries: int = 400,
) -> Cell:
    """An arm that is right on the first ``val`` of its queries (``test`` there), and keeps the
    first ``kept`` of what the start knows, which is all."""

    def first(share: float) -> str:
        return "1" * round(share * queries) + "0" * (queries - round(share * queries))

    on_test = val if test is None else test
    return Cell(
        arm=arm,
        kind="zero_shot" if arm == "zero_shot" else "full",
        budget=budget,
        seed=seed,
        chosen={},
        val=val,
        own=val,
        test=on_test,
        val_hits=first(val),
        test_hits=first(on_test),
        val_retained={"before": kept},
        test_retained={"before": kept},
        val_kept={"before": first(kept)},
        test_kept={"before": first(kept)},
        ece=0.1,
        ece_scaled=0.05,
        temperature=1.0,
        costs=Costs(flops=0.0 if arm == "zero_shot" else flops),
    )


def choice_of(arms: Sequence[Arm], *, retention: float = 0.98) -> Recommendation:
    """What is recommended at the one budget that there is."""
    [found] = recommend(arms, retention=retention, probability=0.5, confidence=0.95, margin=0.01)
    return found
