"""The mean of several trainings of the best labelled arm, on the same labels in other orders."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ptft.compare import compare
from ptft.compare.arms import arm_recipe
from ptft.compare.gathered import gather
from ptft.compare.keys import Keys, base_values
from ptft.compare.recommended import FIRST, RECOMMENDED, write_recommended
from ptft.compare.results import Cell, Cells
from ptft.compare.run import check_comparison
from ptft.compare.sentences import sentences
from ptft.compare.tables import told_name
from ptft.compare.task import Task
from ptft.compare.unlabelled_arms import Base
from ptft.data import open_split
from ptft.data.sample import Part
from ptft.errors import RecipeError
from ptft.model import DualEncoder, load_model
from ptft.recipe import Comparison, Recipe, deciding_values, load_recipe
from ptft.speech import SILENT
from ptft.train import train
from tests.support.comparisons import cell, choice_of, comparison

ARMS = [{"kind": kind} for kind in ("soup", "zero_shot", "full")]
SHAPES = {"seeds": 2, "trials": 1, "wise": [], "retain": [], "soup": 2, "jobs": 1}


def asked(folder: Path, **section: Any) -> Comparison:
    """Of drawn scenes; the soup first, which waits for what it builds on."""
    return comparison(folder, **{"arms": ARMS, **SHAPES, **section})


def member(wanted: Comparison, number: int, folder: Path, *, seed: int = 0) -> Recipe:
    base = Base(wanted.compare.arms[2], {}, member=number)
    return arm_recipe(
        wanted,
        wanted.compare.arms[0],
        budget=8,
        samples=8,
        seed=seed,
        chosen={},
        folder=str(folder),
        base=base,
    )


def labels_of(recipe: Recipe) -> list[int]:
    samples = open_split(recipe.data, "train", seed=recipe.seed)
    assert isinstance(samples, Part)
    return [int(one) for one in samples.indices]


def test_members_learn_from_the_cells_labels_in_orders_of_their_own(tmp_path: Path) -> None:
    wanted = asked(tmp_path)
    first, second, other = (
        member(wanted, number, tmp_path, seed=seed) for number, seed in ((0, 0), (1, 0), (1, 1))
    )
    assert first.data.draw_seed is None
    assert labels_of(first) == labels_of(second) != labels_of(other)
    assert len({first.seed, second.seed, other.seed, wanted.seed + 1}) == 4
    alone = wanted.compare.arms[2]
    full = arm_recipe(wanted, alone, budget=8, samples=8, seed=0, chosen={}, folder=str(tmp_path))
    assert deciding_values(first) == {**deciding_values(full), "name": first.name}


def test_a_soup_is_the_mean_of_its_members(tmp_path: Path) -> None:
    wanted = asked(tmp_path)
    outcome = compare(wanted, log=SILENT)
    assert outcome.left == 0
    cells = {(one.arm, one.seed): one for one in outcome.cells}
    full, soup = cells["full", 0], cells["soup", 0]
    assert (soup.base, soup.unlabelled, soup.chosen, full.base) == ("full", 0, {}, "")
    assert (soup.val_of, soup.train_of) == (full.val_of, full.train_of)  # what was asked
    assert cells["soup", 1].train_of == cells["full", 1].train_of != []
    assert soup.costs.flops == pytest.approx(2 * full.costs.flops, rel=0.02)  # by captions' length
    assert soup.costs.artefact_bytes == full.costs.artefact_bytes > 0
    models = []
    for number in range(2):
        recipe = member(wanted, number, tmp_path / f"member{number}")
        train(recipe, record=False, log=SILENT)
        models.append(load_model(tmp_path / f"member{number}"))
    task = Task(wanted, wanted.compare.arms[0], 8, outcome.folder)
    found = task.train(0, {})
    mean = found.validation.make()
    assert hits(task, mean) == soup.test_hits
    states = [model.state_dict() for model in models]
    apart = 0.0
    for name, value in mean.state_dict().items():
        if value.is_floating_point():
            both = [state[name].double() for state in states]
            torch.testing.assert_close(value.double(), (both[0] + both[1]) / 2, atol=1e-6, rtol=0)
            apart = max(apart, float((both[0] - both[1]).abs().max()))
    assert apart > 1e-5, "members differ"
    alone = asked(tmp_path, arms=ARMS[1:])
    assert Cells(outcome.folder, alone).missing == 0, "what is there already is not run again"
    assert "soup of full" in (outcome.folder / "report.md").read_text()


def hits(task: Task, model: DualEncoder) -> str:
    found = task.target.measure(model, task.target.target.test)
    return "".join(str(int(one)) for one in np.asarray(found.hits))


@pytest.mark.parametrize("kind", ["lora", "prefix"])
def test_a_soup_of_adapters(kind: str, tmp_path: Path) -> None:
    """What was put into a tower is averaged where it is, or with the weights that it is merged in;
    the mean of several LoRAs is none, so that all of it is stored."""
    base = {"kind": kind, "set": {"adapt.towers": ["text"]}}
    wanted = asked(tmp_path, arms=[base, {"kind": "soup"}], seeds=1)
    for arm in wanted.compare.arms:
        Task(wanted, arm, 8, tmp_path / "run").run()
    soup, alone = (Cells(tmp_path / "run", wanted).read(one, 8, 0) for one in ("soup", kind))
    assert soup is not None and alone is not None and soup.base == kind
    assert soup.costs.artefact_bytes > alone.costs.artefact_bytes > 0


def test_cells_of_before_stay_and_a_soups_are_decided_by_what_it_is_of(tmp_path: Path) -> None:
    wanted, without = asked(tmp_path), asked(tmp_path, arms=ARMS[1:])
    assert base_values(wanted) == base_values(without)
    assert Keys(wanted).of(wanted.compare.arms[2], 8) == Keys(without).of(
        without.compare.arms[1], 8
    )

    def key(**section: Any) -> str:
        other = asked(tmp_path, **section)
        return Keys(other).of(other.compare.arms[0], 8).learned

    same = key()
    assert key(margin=0.2) == same
    lora = [*ARMS, {"kind": "lora"}]
    for section in ({"soup": 3}, {"seeds": 3}, {"arms": lora}, {"samples_per_label": 3.0}):
        assert key(**section) != same, section


def won(kind: str) -> list[Cell]:
    cells = [cell("zero_shot", 0.5, budget=8), cell("full", 0.6, budget=8)]
    soup = cell("soup", 0.9, budget=8).__dict__ | {"kind": kind, "base": "full"}
    return [*cells, Cell(**soup)]


def test_it_is_recommended_as_what_it_is(tmp_path: Path) -> None:
    wanted = asked(tmp_path)
    arms = gather(won("soup"), confidence=0.95)
    choice = choice_of(arms)
    assert choice.arm == "soup"
    headline = sentences(wanted, arms, [choice])[0]
    assert "soup (the mean of 2 trainings of full on the same labels)" in headline
    assert [told_name(arm) for arm in arms if arm.name == "soup"] == ["soup of full"]
    write_recommended(wanted, arms, choice, tmp_path)
    assert not (tmp_path / FIRST).exists()
    recipe, text = load_recipe(tmp_path / RECOMMENDED), (tmp_path / RECOMMENDED).read_text()
    assert recipe.data.draw_seed is None and recipe.data.limit is None
    for number in range(2):
        assert f"run.dir=runs/recommended{number} seed={wanted.seed + number}\n" in text
    assert "ptft mix runs/recommended0 runs/recommended1 models/soup\n" in text


def test_a_check_counts_the_trainings_of_its_members(tmp_path: Path) -> None:
    assert check_comparison(asked(tmp_path))["trainings"] == 2 + 2 * 2  # two seeds, two members


def test_what_makes_no_soup_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"compare.arms.soup: no arm beside it"):
        asked(tmp_path, arms=[{"kind": "zero_shot"}, {"kind": "soup"}])
    values = asked(tmp_path).model_dump(mode="json", by_alias=True)
    values["data"]["draw_seed"] = 3
    with pytest.raises(ValueError, match=r"data.draw_seed: 3: each seed of a comparison draws"):
        Comparison.model_validate(values)
