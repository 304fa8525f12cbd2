"""Retained sets that the start itself was selected on, as its run's record tells."""

import math
from pathlib import Path
from statistics import fmean
from typing import Any

from ptft.artifact import RunFiles
from ptft.model_source import Run, resolve
from ptft.recipe import Comparison, DataSection, Recipe, metrics_of
from ptft.recipe.publication import load_foreign
from ptft.report.curves import read_series

__all__ = ["luck_told", "selection_luck"]


def selection_luck(comparison: Comparison) -> dict[str, float]:
    """The part of the start's figure on ``val`` that is not luck, of each retained set whose
    ``val`` stopped the start's training early; nothing without a record.

    The model that does best on a set is best there by luck in part, which what is trained from it
    loses. Its training had come to where it ends with the first look that the set does not tell
    from the best, within one standard error (Breiman et al. 1984, section 3.4.3). The mean of that
    look and those after it is what the start has without its luck; of these a look that lies below
    the best by two standard errors is worse in truth, and left out.
    """
    start = resolve(comparison.init.from_) if comparison.init else None
    if not isinstance(start, Run):
        return {}
    recipe = load_foreign(start.path / RunFiles.RECIPE)
    target = recipe.early_stop_target
    if recipe.stops_early is None or target is None:
        return {}
    looked = _val(target.data or recipe.data)
    names = [
        item.name or item.kind
        for item in comparison.compare.retain
        if item.data is not None and _val(item.data) == looked
    ]
    return dict.fromkeys(names, _share_of_best(start.path, recipe)) if names else {}


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
    """Mean of the looks since the first that is not told from the best, as a share of it."""
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
    since = next(number for number, one in enumerate(looks) if one >= best - error)
    return fmean(one for one in looks[since:] if one >= best - 2.0 * error) / best


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
