"""What the arms that learn from pictures without labels change in the recipe of a labelled arm."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ptft.errors import RecipeError
from ptft.recipe import ArmSection, Comparison, Recipe
from ptft.recipe.comparison import ArmKind
from ptft.recipe.load import parse_recipe
from ptft.recipe.section import LONGEST_NAME

__all__ = ["Base", "adapting_recipe", "apply_unlabelled", "run_values"]

_STRONG = {"crop_scale": 0.3, "colour_jitter": 0.4}
"""The least area of a crop, and the colour jitter, of arms that learn from pictures without labels:
strong as in FixMatch (Sohn et al. 2020), where the data's own augmentation is weaker."""


@dataclass(frozen=True)
class Base:
    """The labelled arm that one of the ``BUILT`` kinds builds on.

    Attributes:
        arm: of the comparison.
        chosen: what was chosen for it.
        model: of ``self_train`` the teacher, of ``adapt_unlabelled`` the adapted start; None: not
            made yet, and the recipe is one like it in all that costs time.
        member: of a soup which of its trainings, from 0, which is the labelled arm's own.
    """

    arm: ArmSection
    chosen: Mapping[str, Any]
    model: str | None = None
    member: int = 0


def apply_unlabelled(
    values: dict[str, Any],
    kind: ArmKind,
    unlabelled: dict[str, Any] | None,
    model: str | None,
    *,
    classify: bool,
) -> None:
    """Change the recipe of a labelled arm into one that has seen, or sees, unlabelled pictures."""
    if kind == "adapt_unlabelled":
        if model is not None:
            values |= {"model": None, "init": {"from": model}}
        return
    if not classify or values["objective"]["reads"] != "image":
        raise RecipeError(
            "compare.arms: self_train labels pictures with classes; allowed with classify that "
            "reads: image"
        )
    _strengthen(values)
    if model is not None:
        values["data"]["unlabelled"] = unlabelled
        values["self_train"] = {"from": model}


def _strengthen(values: dict[str, Any]) -> None:
    augment = values["augment"]
    low, high = augment["crop_scale"]
    augment["crop_scale"] = [min(low, _STRONG["crop_scale"]), high]
    augment["colour_jitter"] = max(augment["colour_jitter"], _STRONG["colour_jitter"])


def adapting_recipe(comparison: Comparison, *, pictures: int, folder: str) -> Recipe:
    """Build the recipe by which ``adapt_unlabelled`` learns before it sees a label; the same for
    every budget and seed.

    Args:
        pictures: in ``data.unlabelled``.
        folder: where its run is to lie.
    """
    values = comparison.model_dump(mode="json", by_alias=True, exclude={"compare"})
    values |= {
        "name": f"{comparison.name}-adapted"[:LONGEST_NAME],
        "data": values["data"]["unlabelled"],
        "objective": {"kind": "self_supervised"},
        "evaluate": [],
        "early_stop": None,
        "regularise": None,
    }
    if values["adapt"]["kind"] != "full":
        values["adapt"] = {"kind": "full"}
    _strengthen(values)
    views = 2 * max(2, math.ceil(comparison.compare.unlabelled_passes * pictures))
    batch = max(4, min(values["optim"]["global_batch"], 2 * pictures) // 2 * 2)
    values["optim"] |= {
        "global_batch": batch,
        "micro_batch": None,
        "samples_seen": views,
        "epochs": None,
    }
    values["run"] |= run_values(folder)
    return parse_recipe(values, where="compare.arms.adapt_unlabelled")


def run_values(folder: str) -> dict[str, Any]:
    """What the ``run`` section of every training of a comparison says."""
    return {
        "dir": folder,
        "workers": 0,
        "threads": 1,
        "trackers": [],
        "page": False,
        "checkpoint_every": 1_000_000,
        "evaluate_every": None,
        "max_minutes": None,
        "mirror": None,
    }
