"""Replay beside classes: what the target labels and what is retained, learned as captions."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ptft.compare.arms import first_recipe
from ptft.compare.results import Cells
from ptft.compare.task import Task
from ptft.data import open_split
from ptft.data.sources.mixture import Mixture
from ptft.errors import RecipeError
from ptft.model import save_model
from ptft.recipe import Comparison, Recipe, deciding_values
from ptft.recipe.load import load_comparison, parse_recipe
from tests.support.recipe_values import values
from tests.support.tiny import build, towers_section

SCENES = {"kind": "scenes", "size": 32, "train": 8, "val": 4, "test": 4}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Red and green pictures, dark and light ones to be retained, and an untrained model."""
    made = tmp_path_factory.mktemp("classes")
    rng = np.random.default_rng(0)
    for kind, names in (("target", ("red", "green")), ("kept", ("dark", "light", "odd"))):
        for split in ("train", "val", "test"):
            for channel, name in enumerate(names):
                (made / kind / split / name).mkdir(parents=True)
                for number in range(3):
                    pixels = rng.integers(0, 100, (32, 32, 3), np.uint8)
                    pixels[..., channel] += 150
                    Image.fromarray(pixels).save(made / kind / split / name / f"{number}.png")
    save_model(build(towers_section()), made / "base")
    return made


def folders(folder: Path, kind: str) -> dict[str, Any]:
    return {"kind": "folder", **{s: str(folder / kind / s) for s in ("train", "val", "test")}}


def wanted(folder: Path, *, retain: list[dict[str, Any]], **changes: Any) -> Comparison:
    recipe: dict[str, Any] = {
        "name": "colours",
        "init": {"from": str(folder / "base")},
        "data": folders(folder, "target"),
        "objective": {"kind": "classify", "templates": ["a {} picture.", "{}"]},
        "optim": {"samples_seen": 32, "global_batch": 8, "lr": 1e-4, "precision": "fp32"},
        "evaluate": [{"kind": "classify"}],
        "run": {"device": "cpu"},
        "compare": {
            "arms": [{"kind": "zero_shot"}, {"kind": "replay"}],
            "budgets": [2],
            "seeds": 1,
            "trials": 1,
            "samples_per_label": 8,
            "wise": [],
            "retain": retain,
            **changes,
        },
    }
    recipe["compare"] = {key: one for key, one in recipe["compare"].items() if one is not None}
    path = folder / "comparison.yaml"
    path.write_text(json.dumps(recipe))
    return load_comparison(path)


def kept_sets(folder: Path) -> list[dict[str, Any]]:
    classes = {"kind": "zero_shot", "templates": ["{} it is."], "data": folders(folder, "kept")}
    return [{"kind": "retrieval", "ks": [1], "data": SCENES}, classes]


def replayed(asked: Comparison) -> Recipe:
    arm = next(arm for arm in asked.compare.arms if arm.kind == "replay")
    return first_recipe(asked, arm, 2, lambda budget: 2 * budget)


def test_classes_and_captions_mix_as_captions(folder: Path) -> None:
    recipe = replayed(wanted(folder, retain=kept_sets(folder)))
    mixture = open_split(recipe.data, "train", seed=0)
    assert isinstance(mixture, Mixture) and recipe.objective.kind == "clip"
    of = {part: set() for part in ("target", "kept0", "kept1")}  # type: dict[str, set[str]]
    for number in range(len(mixture)):
        of[mixture.name(number).partition("/")[0]] |= set(mixture.captions(number))
    assert of["target"] == {"a red picture.", "red", "a green picture.", "green"}
    assert of["kept1"] == {"dark it is.", "light it is.", "odd it is."}
    scenes = open_split(asked_scenes(), "train", seed=0)
    assert of["kept0"] == {text for n in range(8) for text in scenes.captions(n)}
    assert [part.weight for part in recipe.data.parts] == [2.0, 1.0, 1.0]  # type: ignore[union-attr]


def asked_scenes() -> Any:
    return parse_recipe(values(data=SCENES), where="test").data


def test_the_arm_leaves_its_cell_with_a_head_of_the_target(folder: Path, tmp_path: Path) -> None:
    asked = wanted(folder, retain=kept_sets(folder))
    Task(asked, asked.compare.arms[1], 2, tmp_path).run()
    (cell,) = Cells(tmp_path, asked).all()
    assert cell.arm == "replay" and len(cell.test_hits) == 6
    assert cell.test_retained.keys() == {"retrieval", "zero_shot"}
    asked = cell.val_kept["retrieval"]
    assert isinstance(asked, list) and len(asked) == 2 * SCENES["val"]  # as among those of test
    assert set(cell.val_kept["zero_shot"]) <= {"0", "1"}
    start = json.loads((tmp_path / "start_asked_val.json").read_text())
    assert {name: len(row) for name, row in start.items()} == {
        name: len(row) for name, row in cell.val_kept.items()
    }


def test_replay_is_in_the_defaults_where_all_that_is_retained_can_be_learned(folder: Path) -> None:
    def kinds(retain: list[dict[str, Any]]) -> list[str]:
        return [arm.label for arm in wanted(folder, retain=retain, arms=None).compare.arms]

    sets = kept_sets(folder)
    assert kinds(sets)[-1] == "replay" and "lora_r2" in kinds(sets)
    without = {**sets[1], "data": {**sets[1]["data"], "train": None}}
    assert "replay" not in kinds([sets[0], without]) and "replay" not in kinds([])


def test_a_retained_set_without_a_train_side_is_refused_by_name(folder: Path) -> None:
    sets = kept_sets(folder)
    sets[1]["data"] = {key: one for key, one in sets[1]["data"].items() if key != "train"}
    with pytest.raises(RecipeError, match=r"compare\.retain\.zero_shot has no data\.train"):
        replayed(wanted(folder, retain=sets))
    with pytest.raises(RecipeError, match="at least one retained set"):
        replayed(wanted(folder, retain=[]))


def test_a_part_that_mixes_as_before_has_the_digest_that_it_had() -> None:
    data = {"kind": "mixture", "parts": [{"data": SCENES, "weight": 2.0}]}
    found = deciding_values(parse_recipe(values(data=data), where="test"))
    assert "templates" not in found["data"]["parts"][0]
    assert "templates" in found["objective"]
