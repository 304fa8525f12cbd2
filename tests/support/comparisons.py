"""Comparisons of a few seconds."""

import json
from pathlib import Path
from typing import Any

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


def cell(
    arm: str,
    val: float,
    *,
    budget: int = 64,
    seed: int = 0,
    kept: float = 1.0,
    flops: float = 1.0,
    queries: int = 400,
) -> Cell:
    """An arm that is right on the first ``val`` of its queries."""
    hits = "".join("1" if place < round(val * queries) else "0" for place in range(queries))
    return Cell(
        arm=arm,
        kind="zero_shot" if arm == "zero_shot" else "full",
        budget=budget,
        seed=seed,
        chosen={},
        val=val,
        test=val,
        val_hits=hits,
        test_hits=hits,
        val_retained={"before": kept},
        test_retained={"before": kept},
        ece=0.1,
        ece_scaled=0.05,
        temperature=1.0,
        costs=Costs(flops=0.0 if arm == "zero_shot" else flops),
    )
