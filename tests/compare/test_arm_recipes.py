"""What the kinds of arms stand for that are more than one key of a recipe."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ptft.compare.arms import first_recipe, search_space
from ptft.compare.gathered import gather
from ptft.compare.passes import passes_of
from ptft.compare.results import Cells
from ptft.compare.tables import results_table
from ptft.compare.task import Task
from ptft.recipe import Comparison, Recipe
from tests.support.comparisons import cell, write_colours
from tests.support.comparisons import comparison as scenes


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Red and green pictures, four of each in each split, and an untrained model."""
    return write_colours(tmp_path_factory.mktemp("classes"))


def comparison(folder: Path) -> Comparison:
    values: dict[str, Any] = {
        "name": "colours",
        "init": {"from": str(folder / "base")},
        "data": {"kind": "folder", **{s: str(folder / s) for s in ("train", "val", "test")}},
        "objective": {"kind": "classify", "templates": ["a {} picture."]},
        "optim": {"samples_seen": 64, "global_batch": 8, "lr": 1e-4, "precision": "fp32"},
        "evaluate": [{"kind": "classify"}],
        "run": {"device": "cpu"},
        "compare": {
            "arms": [{"kind": kind} for kind in ("zero_shot", "probe", "projection")],
            "budgets": [2],
            "seeds": 1,
            "trials": 1,
        },
    }
    return Comparison.model_validate(values)


def changed(asked: Comparison, **values: Any) -> Comparison:
    given = asked.model_dump(mode="json", by_alias=True)
    for dotted, value in values.items():
        section, _, key = dotted.partition("__")
        given[section][key] = value
    return Comparison.model_validate(given)


def arm_of(asked: Comparison, kind: str) -> Recipe:
    arm = next(arm for arm in asked.compare.arms if arm.kind == kind)
    return first_recipe(asked, arm, 2, lambda budget: 2 * budget)


def space_of(asked: Comparison, kind: str) -> dict[str, Any]:
    return search_space(asked, next(arm for arm in asked.compare.arms if arm.kind == kind))


def test_a_probe_of_text_rows_is_held_to_them_as_strongly_as_validation_likes(folder: Path) -> None:
    asked = comparison(folder)
    recipe = arm_of(asked, "probe")
    assert recipe.regularise is not None and recipe.optim.weight_decay == 0.0
    assert recipe.regularise.start == space_of(asked, "probe")["regularise.start"].low
    drawn = changed(asked, objective__head="random")
    assert arm_of(drawn, "probe").regularise is None
    assert space_of(drawn, "probe").keys() == {"optim.lr"}


def test_long_names_join_in_one_that_a_file_can_have(folder: Path) -> None:
    longest = "a" * 100
    arms = [{"kind": "zero_shot"}, {"kind": "full", "name": longest}]
    asked = changed(comparison(folder), compare__arms=arms)
    asked = asked.model_copy(update={"name": longest})
    made = first_recipe(asked, asked.compare.arms[1], 2, lambda budget: 2 * budget)
    assert made.name == longest
    arms[1]["name"] += "a"
    with pytest.raises(ValueError, match="at most 100 characters"):
        changed(comparison(folder), compare__arms=arms)


def test_a_projection_for_classes_is_solved(folder: Path, tmp_path: Path) -> None:
    asked = changed(comparison(folder), augment__flip=True, optim__lr_image=1e-3)
    recipe = arm_of(asked, "projection")
    assert recipe.optim.optimizer == "lbfgs" and not recipe.augment.flip
    assert (recipe.optim.global_batch, recipe.optim.samples_seen) == (4, 400)
    assert space_of(asked, "projection") == {}  # no rate to choose
    at_other_rates = []
    for lr in (1e-5, 1e-2):
        given = changed(asked, optim__lr=lr, compare__wise=[])
        arm = next(arm for arm in given.compare.arms if arm.kind == "projection")
        Task(given, arm, 2, tmp_path / str(lr)).run()
        (found,) = Cells(tmp_path / str(lr), given).all()
        at_other_rates.append(found.test_hits)
    assert at_other_rates[0] == at_other_rates[1]


def test_of_captions_a_projection_keeps_its_steps(tmp_path: Path) -> None:
    asked = scenes(tmp_path, arms=[{"kind": "zero_shot"}, {"kind": "projection"}])
    assert arm_of(asked, "projection").optim.optimizer == "adamw"
    assert "optim.lr" in space_of(asked, "projection")


@pytest.mark.parametrize("asked_passes, cut", [(10, True), (2, False)])
def test_an_arm_that_the_recipe_cuts_short_is_marked(
    asked_passes: int, cut: bool, tmp_path: Path
) -> None:
    asked = scenes(tmp_path, samples_per_label=asked_passes)
    arm = next(one for one in asked.compare.arms if one.kind == "full")
    passes = passes_of(asked, arm, 8)
    assert passes == 2.0  # of 16 samples
    own = arm.model_copy(update={"set": {"optim.samples_seen": 12}})
    assert passes_of(asked, own, 8) == 1.5
    cells = [cell("zero_shot", 0.5), replace(cell("full", 0.6), passes=passes)]
    rows = results_table(asked, gather(cells, confidence=0.95), [])
    assert ("cut short at 2 of 10 passes" in rows[1][1]) == cut
    assert rows[2][1] == "zero_shot"
