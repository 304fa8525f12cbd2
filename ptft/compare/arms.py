"""Turns an arm of a comparison into the recipe that it stands for at one budget and seed."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, get_args

from ptft.compare.unlabelled_arms import Base, apply_unlabelled, run_values
from ptft.errors import RecipeError
from ptft.recipe import ClassifyObjective, DetectObjective, Recipe, SelfTrainSection
from ptft.recipe.comparison import (
    BUILT,
    UNLABELLED,
    ArmKind,
    ArmSection,
    Comparison,
    SearchRange,
    can_be_base,
    per_class,
)
from ptft.recipe.data import has_split
from ptft.recipe.evaluation import EvaluateItem, RetrievalEvaluation
from ptft.recipe.load import parse_recipe, set_key
from ptft.recipe.optim import LBFGS
from ptft.recipe.section import LONGEST_NAME

__all__ = [
    "MIXES",
    "START",
    "STEPLESS",
    "arm_recipe",
    "first_recipe",
    "search_space",
]

START: ArmKind = "zero_shot"
"""The kind of arm that is the starting model itself."""

MIXES: tuple[ArmKind, ...] = (
    "probe",
    "full",
    "lp_ft",
    "flyp",
    "lora",
    "dora",
    "l2_sp",
    "projection",
    "replay",
)
"""Kinds whose weights can be mixed with those that they started from: the same tensors."""

STEPLESS: tuple[ArmKind, ...] = (START, "tip_adapter")
"""Kinds without a step, which have no learning rate to search."""

_FASTER: dict[ArmKind, float] = {
    "lora": 3.0,
    "dora": 3.0,
    "prefix": 10.0,
    "bottleneck": 3.0,
    "projection": 10.0,
}
"""How much higher a learning rate suits few fresh weights than all the old ones."""

_NOT_OF_BOXES: tuple[ArmKind, ...] = (
    "lp_ft",
    "flyp",
    "tip_adapter",
    "projection",
    "replay",
    *BUILT,
)
"""Kinds that learn from classes, captions or pictures without labels, of which boxes have none; and
soups, since a box head begins with random weights, whose mean is no head."""

_APART = 64  # as many seeds as a comparison has at most
_SOLVED = 100  # passes of a line search at most, as of finetune/few-shot-emoji
_HELD = SearchRange(low=3e-3, high=3.0)  # of a head made of prompts; 1 / shots at 1 to 300 of them
_FACTOR = 3.0  # a search goes from a third of the rate to three times it


def arm_recipe(
    comparison: Comparison,
    arm: ArmSection,
    *,
    budget: int,
    samples: int,
    seed: int,
    chosen: Mapping[str, Any],
    folder: str,
    base: Base | None = None,
) -> Recipe:
    """Build the recipe of an arm that learns.

    Args:
        budget: labelled samples (of each class for ``classify``).
        samples: how many that are in all.
        seed: of the cell: which labels, in which order.
        chosen: dotted keys and values of a trial.
        folder: where its run is to lie.
        base: of an arm that builds on one; absent: the first that it could be.

    Raises:
        RecipeError: ``set`` or ``search`` names what a recipe does not have.
    """
    values = comparison.model_dump(mode="json", by_alias=True, exclude={"compare"})
    classify = isinstance(comparison.objective, ClassifyObjective)
    values["name"] = f"{comparison.name}-{arm.label}"[:LONGEST_NAME]
    values["seed"] = comparison.seed + seed
    values |= {"evaluate": [], "early_stop": None}  # every arm takes all its steps
    if isinstance(comparison.objective, DetectObjective) and arm.kind in _NOT_OF_BOXES:
        others = ", ".join(kind for kind in get_args(ArmKind) if kind not in _NOT_OF_BOXES)
        raise RecipeError(
            f"compare.arms.{arm.label}.kind: {arm.kind!r} with objective.kind 'detect'; allowed: "
            f"{others}"
        )
    values["data"]["shots" if per_class(comparison) else "limit"] = budget
    unlabelled = values["data"].pop("unlabelled", None)
    if classify:  # a cell fits its own temperature, on no more of val than its budget allows
        values["objective"]["calibrate"] = False
    kept = comparison.compare.retain
    kind, sets = arm.kind, {**arm.set, **chosen}
    if kind in BUILT:
        base = base or Base(_first_base(comparison), {})
        kind, sets = base.arm.kind, {**base.arm.set, **base.chosen, **sets}
    _apply_kind(values, kind, kept, comparison.compare.replay, classify=classify)
    if arm.kind == "tip_adapter":  # chooses on what Target.val gives the others to choose on
        values["adapt"]["val_limit"] = min(samples, comparison.compare.val_most)
    if base is not None and base.member:  # of a soup: an order of its own, on the same labels
        values["data"]["draw_seed"] = values["seed"]
        values["seed"] += _APART * base.member
    if base is not None and arm.kind in UNLABELLED:
        apply_unlabelled(values, arm.kind, unlabelled, base.model, classify=classify)
    for key, value in sets.items():
        set_key(values, key, value, what=f"compare.arms.{arm.label}")
    # replay sees the target's samples as often as the others do, and retained ones beside them
    times = 1.0 + (comparison.compare.replay if arm.kind == "replay" else 0.0)
    if arm.kind == "self_train":
        times = 1 / (1 - SelfTrainSection.model_fields["share"].default)
    passes = 1.0 if arm.kind in STEPLESS else comparison.compare.samples_per_label
    _limit_length(values, passes=passes, samples=samples, times=times)
    values["run"] |= run_values(folder)
    return parse_recipe(values, where=f"compare.arms.{arm.label}")


def first_recipe(
    comparison: Comparison, arm: ArmSection, budget: int, samples: Callable[[int], int]
) -> Recipe:
    """Build an arm's recipe with the lowest values of its search, which shows what is wrong with
    the arm before anything is trained.

    Args:
        samples: labelled samples in all at a budget.

    Raises:
        RecipeError: see ``arm_recipe``.
    """
    space = search_space(comparison, arm)
    return arm_recipe(
        comparison,
        arm,
        budget=budget,
        samples=samples(budget),
        seed=0,
        chosen={k: v[0] if isinstance(v, list) else v.low for k, v in space.items()},
        folder="unused",
    )


def search_space(comparison: Comparison, arm: ArmSection) -> dict[str, SearchRange | list[Any]]:
    """Give the keys and ranges that an arm's trials choose from; empty without a choice."""
    if arm.search is not None:
        return arm.search
    if arm.kind in (*STEPLESS, *BUILT):  # these take what was chosen for their base
        return {}
    objective = comparison.objective
    classify = isinstance(objective, ClassifyObjective)
    if arm.kind == "projection" and classify:  # which is solved
        return {}
    lr = _learning_rate(comparison, arm)
    space: dict[str, SearchRange | list[Any]] = {
        "optim.lr": SearchRange(low=lr / _FACTOR, high=lr * _FACTOR)
    }
    if arm.kind == "probe" and isinstance(objective, ClassifyObjective):
        return space | ({"regularise.start": _HELD} if objective.head == "prompts" else {})
    return space


def _learning_rate(comparison: Comparison, arm: ArmSection) -> float:
    if "optim.lr" in arm.set:
        return float(arm.set["optim.lr"])
    return comparison.optim.lr * _FASTER.get(arm.kind, 1.0)


def _apply_kind(
    values: dict[str, Any],
    kind: ArmKind,
    kept: Sequence[EvaluateItem],
    replay: float,
    *,
    classify: bool,
) -> None:
    """Change the comparison's recipe into one of this kind."""
    # Over 60 lines: a case for each kind of arm, read as a table.
    adapt = values["adapt"] if values["adapt"]["kind"] == "full" else {"kind": "full"}
    match kind:
        case "probe" if classify and values["objective"]["head"] == "prompts":
            values["adapt"] = {"kind": kind}  # held to what the texts say, as strongly as suits
            values["regularise"] = {"start": "auto"}
            values["optim"]["weight_decay"] = 0.0
        case "scratch":
            if values["init"] is not None:
                values["init"]["weights"] = False
            else:
                for key in ("pretrained", "image_weights"):
                    if key in values["model"]:
                        values["model"][key] = None
            values["adapt"] = {"kind": "full"}
            if classify:
                values["objective"]["head"] = "random"
        case "probe" | "lora" | "dora" | "prefix" | "bottleneck":
            values["adapt"] = {"kind": kind}
        case "full":
            values["adapt"] = adapt
        case "lp_ft":
            values["adapt"] = adapt
            if not classify:
                raise RecipeError("compare.arms: lp_ft fits a head first; allowed with classify")
            values["objective"]["head"] = "probe"
        case "flyp":
            if not classify:
                raise RecipeError(
                    "compare.arms: flyp learns classes as captions; with captions 'full' is it"
                )
            values["objective"] = {"kind": "clip", "templates": _as_captions(values)}
            values["adapt"] = adapt
        case "l2_sp":
            values["adapt"] = adapt
            values["regularise"] = {"start": "auto"}
            values["optim"]["weight_decay"] = 0.0  # it pulls to zero, this to the start
        case "projection":
            values["adapt"] = {"kind": "projection", "logit_scale": False}
            values["regularise"] = {"start": "auto"}
            values["optim"]["weight_decay"] = 0.0
            if classify:
                _solve(values)
        case "tip_adapter":
            if not classify:
                raise RecipeError(
                    "compare.arms: tip_adapter remembers pictures by their class; allowed with "
                    "classify"
                )
            values["adapt"] = {"kind": "tip_adapter"}
        case "replay":
            values["adapt"] = adapt
            templates = _as_captions(values) if classify else None
            values["data"] = _with_replay(values["data"], templates, kept, replay)
        case "zero_shot" | "soup" | "self_train" | "adapt_unlabelled":
            raise AssertionError("a zero-shot arm has no recipe, and others have their base's")
    values["optim"]["lr"] *= _FASTER.get(kind, 1.0)


def _solve(values: dict[str, Any]) -> None:
    """Let a last projection be solved, as ``finetune/few-shot-emoji`` does it, on features that are
    computed once: no rate is left to choose."""
    values["augment"] |= {"crop_scale": [1.0, 1.0], "flip": False, "colour_jitter": 0.0}
    values["optim"] |= {
        "optimizer": LBFGS,
        "optimizer_args": {},
        "clip_grad_norm": None,
        "micro_batch": None,
        "warmup": 0.0,
        "schedule": "constant",
        "precision": "fp32",
        **dict.fromkeys(("lr_image", "lr_text", "lr_head", "layer_decay", "betas", "eps")),
    }


def _first_base(comparison: Comparison) -> ArmSection:
    return next(arm for arm in comparison.compare.arms if can_be_base(arm.kind))


def _as_captions(values: dict[str, Any]) -> list[str]:
    """Make a classifier's recipe one of class names as captions; the templates of these."""
    objective = values["objective"]
    if objective["reads"] == "text":
        raise RecipeError(
            "compare.arms: flyp and replay hold class names against pictures; objective.reads "
            "'text' has none"
        )
    values["objective"] = {"kind": "clip"}
    templates: list[str] = objective["templates"]
    return templates


def _with_replay(
    target: dict[str, Any],
    templates: list[str] | None,
    kept: Sequence[EvaluateItem],
    replay: float,
) -> dict[str, Any]:
    """Mix the target's labels with the training splits of the retained sets, in equal parts.

    Args:
        templates: of a target whose labels are classes, which are learned as captions then.
    """
    parts = [{"data": target, "weight": float(len(kept)), "name": "target", "templates": templates}]
    for number, item in enumerate(kept):
        if item.data is None or not has_split(item.data, "train"):
            raise RecipeError(
                f"compare.arms: replay: compare.retain.{item.label} has no data.train to learn "
                "from; allowed: retained sets that have one"
            )
        part = {
            "data": item.data.model_dump(mode="json"),
            "weight": replay,
            "name": f"kept{number}",
        }
        if not isinstance(item, RetrievalEvaluation):  # labels, of its own classes
            part["templates"] = getattr(item, "templates", None) or ["a photo of a {}."]
        parts.append(part)
    if not kept:
        raise RecipeError(
            "compare.arms: replay mixes what compare.retain has to learn from into the target's; "
            "allowed with at least one retained set"
        )
    return {"kind": "mixture", "parts": parts}


def _limit_length(values: dict[str, Any], *, passes: float, samples: int, times: float) -> None:
    """Set the length to so many passes, at most the recipe's own, and a batch that they fill."""
    optim = values["optim"]
    wanted = passes * samples
    if optim["samples_seen"] is not None:
        wanted = min(wanted, optim["samples_seen"])
    else:
        wanted = min(wanted, optim["epochs"] * samples)
    if optim["optimizer"] == LBFGS:  # a batch is all there is, and a pass costs no picture
        optim |= {"global_batch": samples, "samples_seen": _SOLVED * samples, "epochs": None}
        return
    batch = min(optim["global_batch"], samples)
    seen = math.ceil(times * max(batch, math.ceil(wanted)))
    optim |= {"global_batch": batch, "samples_seen": seen, "epochs": None}
