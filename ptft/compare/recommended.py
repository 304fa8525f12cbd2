"""``recommended.yaml``: the winner's recipe, which trains on all labels what is to be shipped."""

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ptft.artifact import write_atomic
from ptft.compare.arms import START, arm_recipe
from ptft.compare.gathered import Arm
from ptft.compare.recommend import Recommendation
from ptft.compare.results import MIXED
from ptft.compare.sentences import unit
from ptft.compare.unlabelled_arms import Base, adapting_recipe
from ptft.data import open_split
from ptft.recipe import Comparison, Recipe
from ptft.recipe.comparison import per_class
from ptft.recipe.load import dump_recipe, parse_recipe

__all__ = ["FIRST", "FIRST_RUN", "RECOMMENDED", "recommended_recipe", "write_recommended"]

RECOMMENDED = "recommended.yaml"
FIRST = "recommended_first.yaml"
"""What is trained before it, of an arm with unlabelled pictures."""

FIRST_RUN = "runs/first"


def recommended_recipe(
    comparison: Comparison, arm: Arm, *, samples: int, at: int, under: Arm | None = None
) -> Recipe:
    """Build the recipe of an arm on all labels, with the hyperparameters that were chosen for it
    and as many passes over the labels as it had in the comparison.

    Args:
        arm: that learns; of a mix or a soup it is what is mixed afterwards.
        samples: of ``data.train``.
        at: labelled samples in all at the arm's budget.
        under: the labelled arm that it builds on, if it does.

    Raises:
        RecipeError: the arm's keys make no recipe.
    """
    label = arm.name.removesuffix(MIXED)
    section = next(one for one in comparison.compare.arms if one.label == label)
    chosen = {key: value for key, value in arm.chosen.items() if key != "alpha"}
    own = comparison.model_dump(mode="json", by_alias=True)
    base = None
    if under is not None:
        below = next(one for one in comparison.compare.arms if one.label == under.name)
        base = Base(below, under.chosen, FIRST_RUN)

    def values(labels: int) -> dict[str, Any]:
        recipe = arm_recipe(
            comparison,
            section,
            budget=arm.budget,
            samples=labels,
            seed=0,
            chosen=chosen,
            folder="unused",
            base=base,
        )
        return recipe.model_dump(mode="json", by_alias=True)

    tried, found = values(at), values(samples)
    # the passes that it had, also where the recipe's own length cut them short
    found["optim"]["samples_seen"] = round(tried["optim"]["samples_seen"] * samples / at)
    for part in (found["data"], *(one["data"] for one in found["data"].get("parts", [])[:1])):
        for key in ("shots", "limit"):
            if key in part and key in own["data"]:
                part[key] = own["data"][key]
    kept = [item.model_dump(mode="json", by_alias=True) for item in comparison.compare.retain]
    found["evaluate"] = [*own["evaluate"], *kept]
    found["run"] = {**own["run"], "dir": None, "mirror": None}
    return parse_recipe(found, where=RECOMMENDED)


def write_recommended(
    comparison: Comparison, arms: Sequence[Arm], last: Recommendation, folder: Path
) -> Path | None:
    """Write the recipe of what is recommended at the largest budget; none where that is the start,
    and one that is there from before goes.

    Raises:
        DataError, RecipeError: ``data.train`` cannot be opened.
    """
    path = folder / RECOMMENDED
    arm = next(one for one in arms if (one.name, one.budget) == (last.arm, last.budget))
    first = folder / FIRST
    first.unlink(missing_ok=True)
    if arm.kind == START:
        path.unlink(missing_ok=True)
        return None
    train = open_split(comparison.data, "train", seed=comparison.seed)
    classes = len(train.classes or ()) if per_class(comparison) else 1
    at = arm.budget * classes
    under = next(
        (a for a in arms if a.base == "" and (a.name, a.budget) == (arm.base, arm.budget)), None
    )
    if under is not None and arm.unlabelled:
        before = _before(comparison, arm, under, samples=len(train), at=at)
        told = f"# What {arm.name} begins with: ptft train {FIRST} run.dir={FIRST_RUN}\n\n"
        write_atomic(first, told + dump_recipe(before))
    recipe = recommended_recipe(comparison, arm, samples=len(train), at=at, under=under)
    write_atomic(path, _header(comparison, arm, len(train)) + dump_recipe(recipe))
    return path


def _before(comparison: Comparison, arm: Arm, under: Arm, *, samples: int, at: int) -> Recipe:
    """The recipe of a teacher on all labels, or of a start that adapts to the pictures."""
    if arm.kind == "self_train":
        return recommended_recipe(comparison, under, samples=samples, at=at)
    recipe = adapting_recipe(comparison, pictures=arm.unlabelled, folder=FIRST_RUN)
    return recipe.model_copy(update={"run": comparison.run.model_copy(update={"dir": None})})


def _header(comparison: Comparison, arm: Arm, samples: int) -> str:
    labels = f"{arm.budget:,} {unit(comparison)}"
    said = (
        f"{arm.name} as `ptft compare` recommends it at {labels} (test {100 * arm.test:.1f} %, "
        f"{100 * arm.low:.1f} to {100 * arm.high:.1f}), here on all {samples:,} samples of "
        "data.train, with the hyperparameters that were chosen there and as many passes."
    )
    lines = textwrap.wrap(said, 96)
    if arm.unlabelled:
        lines.append(f"ptft train {FIRST} run.dir={FIRST_RUN}")
    if arm.kind == "soup":
        return _commented([*lines, *_soup_lines(comparison)])
    lines.append(f"ptft train {RECOMMENDED} run.dir=runs/recommended")
    if arm.chosen.get("alpha", 1.0) != 1.0:  # of all of it nothing is left to mix
        start = comparison.init.from_ if comparison.init else "START"
        lines.append(
            f"ptft mix runs/recommended models/mixed --base {start} --alpha {arm.chosen['alpha']}"
        )
    return _commented(lines)


def _soup_lines(comparison: Comparison) -> list[str]:
    """The commands that train the members, each with a seed of its own, and mix them."""
    runs = [f"runs/recommended{number}" for number in range(comparison.compare.soup)]
    trained = [
        f"ptft train {RECOMMENDED} run.dir={run} seed={comparison.seed + number}"
        for number, run in enumerate(runs)
    ]
    return [*trained, f"ptft mix {' '.join(runs)} models/soup"]


def _commented(lines: Sequence[str]) -> str:
    return "".join(f"# {line}\n" for line in lines) + "\n"
