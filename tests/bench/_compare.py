"""Runs a built-in comparison as its users do, and reads its figures."""

import json
import tempfile
from pathlib import Path
from statistics import fmean
from typing import Any

from tests.bench._parts import ptft

__all__ = ["BARS", "compared", "from_start"]

BARS = {
    "minutes": ("<=", 20.0),
    "arms": (">=", 8),
    "budgets": (">=", 4),
    "seeds": (">=", 3),
    "cells": (">=", 96),
    "regret_points": ("<=", 1.0),
    "gain_kept": (">=", 0.9),
}


# of a smoke run: two arms at one budget, a step each
_SMALL = (
    "optim.samples_seen=16",
    "optim.global_batch=16",
    "compare.arms=[{kind: zero_shot}, {kind: full}]",
    "compare.budgets=[4]",
    "compare.seeds=1",
    "compare.trials=1",
    "compare.wise=[]",
)


def compared(name: str, folder: Path, *overrides: str, smoke: bool = False) -> dict[str, float]:
    """Compare, print the report's table, and give its figures.

    Returns:
        Minutes, arms (mixes not counted), budgets, seeds and cells (mixes not counted); over the
        budgets the mean and the largest regret of the recommendation, in points, and the mean and
        the least share of full fine-tuning's gain that an arm keeps while it retains 98 % on test,
        where full fine-tuning gains.
    """
    small = _SMALL if smoke else ()
    minutes = ptft("compare", name, f"run.dir={folder}", *overrides, *small, smoke=smoke)
    found = json.loads((folder / "results.json").read_text())
    report = (folder / "report.md").read_text()
    print(report.partition("## What it took here")[0])
    arms = [arm for arm in found["arms"] if not arm["name"].endswith("+wise")]
    figures: dict[str, float] = {
        "minutes": round(minutes, 1),
        "arms": len({arm["name"] for arm in arms}),
        "budgets": len({arm["budget"] for arm in arms}),
        "seeds": min(arm["seeds"] for arm in arms),
        "cells": sum(arm["seeds"] for arm in arms),
    }
    regrets = [100 * one["regret"] for one in found["recommendations"]]
    figures |= {"regret_points": round(fmean(regrets), 2), "most_regret": round(max(regrets), 2)}
    if kept := _kept(found):
        figures |= {"gain_kept": round(fmean(kept), 3), "least_kept": round(min(kept), 3)}
    return figures


def from_start(pretraining: str, name: str, *, smoke: bool) -> dict[str, float]:
    """Train a start by a built-in recipe and compare from it; the minutes of both, apart."""
    with tempfile.TemporaryDirectory() as made:
        start = Path(made) / "start"
        options = [f"run.dir={start}", "run.trackers=[]"]
        options += ["optim.samples_seen=256", "evaluate=[]"] if smoke else []
        minutes = ptft("train", pretraining, *options, smoke=smoke)
        figures = compared(name, Path(made) / "compared", f"init.from={start}", smoke=smoke)
    return {**figures, "pretraining_minutes": round(minutes, 1)}


def _kept(found: dict[str, Any]) -> list[float]:
    """Test gain of the best arm within the bound over that of full fine-tuning, by budget."""
    shares = []
    for budget in sorted({arm["budget"] for arm in found["arms"]}):
        arms = {arm["name"]: arm for arm in found["arms"] if arm["budget"] == budget}
        gain = arms["full"]["test"] - arms["zero_shot"]["test"]
        if gain > 0:
            within = [arm for arm in arms.values() if arm["test_retention"] >= 0.98]
            shares.append((max(a["test"] for a in within) - arms["zero_shot"]["test"]) / gain)
    return shares
