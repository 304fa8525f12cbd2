"""Retained sets that the start itself was selected on, as its run's record tells."""

import math
from pathlib import Path
from statistics import fmean
from typing import Any

from ptft.artifact import RunFiles
from ptft.compare.kept import KeptSet
from ptft.model_source import Run, resolve
from ptft.recipe import Comparison, DataSection, Recipe, RetrievalEvaluation, metrics_of
from ptft.recipe.publication import load_foreign
from ptft.report.curves import read_series

__all__ = ["kept_sets", "luck_told", "run_of_start", "selected_on", "selection_luck"]


def kept_sets(comparison: Comparison) -> dict[str, KeptSet]:
    """How the answers on each retained set are read, by its name."""
    luck = selection_luck(comparison)
    return {
        (name := item.name or item.kind): KeptSet(
            luck.get(name, 1.0), isinstance(item, RetrievalEvaluation)
        )
        for item in comparison.compare.retain
    }


def selection_luck(comparison: Comparison) -> dict[str, float]:
    """The part of the start's figure on ``val`` that is not luck, of each retained set whose
    ``val`` stopped the start's training early; nothing without a record, nor where ``train`` is
    asked in its place.

    The model that does best on a set is best there by luck in part, which what is trained from it
    loses. The looks that came after it were taken where training had come at least as far, and not
    for what they showed; their mean is what the start has without its luck, but for looks that lie
    two standard errors below the best, which are worse in truth. Where none is left nothing is
    corrected.
    """
    names = selected_on(comparison) - set(comparison.compare.ask_train)
    start = run_of_start(comparison)
    if start is None or not names:
        return {}
    share = _share_of_best(start, load_foreign(start / RunFiles.RECIPE))
    return dict.fromkeys(sorted(names), share) if share < 1.0 else {}


def run_of_start(recipe: Recipe) -> Path | None:
    """The folder of the run that a recipe starts from, where it is one."""
    source = resolve(recipe.init.from_) if recipe.init else None
    return source.path if isinstance(source, Run) else None


def selected_on(comparison: Comparison) -> set[str]:
    """Names of the retained sets whose ``val`` stopped the start's training early."""
    start = run_of_start(comparison)
    if start is None:
        return set()
    recipe = load_foreign(start / RunFiles.RECIPE)
    target = recipe.early_stop_target
    if recipe.stops_early is None or target is None:
        return set()
    looked = _val(target.data or recipe.data)
    return {
        item.label
        for item in comparison.compare.retain
        if item.data is not None and _val(item.data) == looked
    }


def luck_told(luck: dict[str, float]) -> str | None:
    """Tell in a sentence what was corrected; None where nothing was."""
    if not luck:
        return None
    parts = [f"{name} {100 * share:.1f} %" for name, share in sorted(luck.items())]
    return (
        "The start was stopped early on val of what is to be retained, where its figure is too "
        f"high; for the choice it counts as so much of it: {', '.join(parts)}. Another val tells "
        "it better."
    )


def _share_of_best(run: Path, recipe: Recipe) -> float:
    """Mean of the looks after the best that may be as good in truth, as a share of it."""
    section, target = recipe.stops_early, recipe.early_stop_target
    assert section is not None and target is not None
    series = read_series(run)
    metric = f"{target.label}/{section.metric or metrics_of(target, recipe.data)[0]}"
    looks = [value for _, value in series.get(metric, ())]
    best = max(looks, default=0.0)
    if not 0.0 < best <= 1.0:
        return 1.0
    if looks.index(best) < len(looks) - 1 and looks[-1] == best:
        looks.pop()  # the figure that a run ends with is that of its best look once more
    _, pictures = series.get(f"{target.label}/images", [(0, 1)])[0]
    error = math.sqrt(best * (1.0 - best) / max(1.0, pictures))
    after = looks[looks.index(best) + 1 :]
    near = [one for one in after if one >= best - 2.0 * error]
    return fmean(near) / best if near else 1.0


def _val(section: DataSection) -> dict[str, Any]:
    """What decides which samples ``val`` holds; those held out of ``train`` follow from it."""
    values = section.model_dump(mode="json")
    if values.get("hold_out") is None and section.kind != "mixture":
        for name in ("train", "limit", "shots", "resample"):
            values.pop(name, None)
    values.pop("captions", None)
    if section.kind != "scenes":
        values.pop("test", None)
        if isinstance(values.get("val"), str):
            values["val"] = str(Path(values["val"]).resolve())
    return values
