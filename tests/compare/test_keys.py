"""A comparison that grows: what is finished stays, and the rest is what a fresh one would give."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from ptft.artifact import RunFiles
from ptft.cli.main import app
from ptft.compare import compare, task
from ptft.compare.again import explain_again, summarise
from ptft.compare.gathered import gather
from ptft.compare.keys import Keys
from ptft.compare.recommended import RECOMMENDED, recommended_recipe, write_recommended
from ptft.compare.results import Cell, Cells, Costs
from ptft.compare.run import check_comparison
from ptft.compare.task import Task
from ptft.errors import ArtifactError, RecipeError, UsageError
from ptft.recipe import Comparison, Recipe, ScenesData, check_recipe, load_recipe
from ptft.recipe.load import load_comparison
from ptft.speech import SILENT
from tests.support.comparisons import cell, choice_of, comparison

FULL = {"kind": "full", "search": {"optim.lr": [1e-3, 3e-3, 1e-2]}}


def changed(wanted: Comparison, **section: Any) -> Comparison:
    values = wanted.model_dump(mode="json", by_alias=True)
    values["compare"] |= section
    return Comparison.model_validate(values)


def key(wanted: Comparison, label: str = "full", budget: int = 8) -> str:
    arm = next(arm for arm in wanted.compare.arms if arm.label == label)
    return Keys(wanted).of(arm, budget).name


@pytest.mark.parametrize(
    "section",
    [
        {"seeds": 5},
        {"budgets": [4, 8, 16]},
        {"jobs": 1, "margin": 0.2, "confidence": 0.9, "replay": 2.0},
        {"arms": [{"kind": "probe"}, {"kind": "full"}, {"kind": "zero_shot"}]},
    ],
)
def test_what_others_do_decides_nothing_of_a_cell(section: dict[str, Any], tmp_path: Path) -> None:
    wanted = comparison(tmp_path)
    assert key(changed(wanted, **section)) == key(wanted)
    assert key(changed(wanted, **section), "zero_shot") == key(wanted, "zero_shot")


@pytest.mark.parametrize(
    "section",
    [
        {"trials": 3},
        {"wise": []},
        {"prune_at": []},
        {"samples_per_label": 3.0},
        {"val_most": 7},
        {"retention": 0.5},
        {"metric": "t2i_recall@5"},
        {"retain": []},
        {"arms": [{"kind": "full", "set": {"optim.lr": 1e-5}}]},
        {"arms": [{"kind": "full", "search": {"optim.lr": [1e-5]}}]},
        {"arms": [{"kind": "lora", "name": "full"}]},
    ],
)
def test_what_an_arm_learns_by_decides_its_cells(section: dict[str, Any], tmp_path: Path) -> None:
    wanted = comparison(tmp_path)
    assert key(changed(wanted, **section)) != key(wanted)
    other = wanted.model_copy(update={"seed": 7})
    assert key(other) != key(wanted)


def plain(cells: list[Cell]) -> list[Cell]:
    """Without what depends on the machine's load."""
    return [
        replace(cell, costs=Costs(), trials=[replace(one, cpu_seconds=0.0) for one in cell.trials])
        for cell in cells
    ]


def test_seeds_and_trials_are_added_to_what_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[tuple[int, float]] = []
    train = task.train

    def counted(recipe: Recipe, **options: Any) -> Any:
        ran.append((recipe.seed, recipe.optim.lr))
        return train(recipe, **options)

    monkeypatch.setattr(task, "train", counted)

    def cells(wanted: Comparison, folder: str) -> list[Cell]:
        Task(wanted, wanted.compare.arms[0], 8, tmp_path / folder).run()
        return plain(Cells(tmp_path / folder, wanted).all())

    small = comparison(tmp_path, arms=[FULL], seeds=1, trials=2, prune_at=[0.5], wise=[])
    first = cells(small, "grown")
    assert len(ran) == 2 and len(first[0].trials) == 2
    ran.clear()

    seeds = changed(small, seeds=2)
    assert cells(seeds, "grown")[0] == first[0]
    assert [seed for seed, _ in ran] == [1], "one training, of the new seed"
    ran.clear()

    larger = changed(small, seeds=2, trials=3)
    grown = cells(larger, "grown")
    stayed = grown[0].chosen == first[0].chosen
    assert len(ran) == (1 if stayed else 2), "the new trial; and the other seed where it won"
    ran.clear()
    assert grown == cells(larger, "fresh") and len(ran) == 4
    ran.clear()
    assert cells(small, "grown") == first and not ran, "what it was before is there too"


def test_a_comparison_grows_by_a_budget_and_an_arm(tmp_path: Path) -> None:
    arms = [{"kind": "zero_shot"}, {"kind": "probe"}]
    small = comparison(tmp_path, arms=arms, seeds=1, trials=1, wise=[], jobs=1)
    before = compare(small, log=SILENT)
    times = {path: path.stat().st_mtime_ns for path in before.folder.glob("cells/*.json")}
    assert len(times) == 2
    larger = changed(small, arms=[*arms, {"kind": "l2_sp"}], budgets=[4, 8])
    after = compare(larger, log=SILENT)
    assert (after.left, len(after.cells)) == (0, 6)
    assert times == {path: path.stat().st_mtime_ns for path in times}
    assert "seeds: 1" in (after.folder / RunFiles.RECIPE).read_text()
    assert "l2_sp" in (after.folder / RunFiles.RECIPE).read_text()
    assert {path.name for path in after.folder.glob("recommended*")} <= {RECOMMENDED}

    told = explain_again(after.folder, ["compare.margin=0.9"])
    assert told.startswith("## 4 labels: ") and told.count("| l2") == 2
    assert told.count("recommended") == 2
    with pytest.raises(UsageError, match="no comparison is there"):
        explain_again(tmp_path / "comparison.yaml", [f"run.dir={tmp_path / 'none'}"])
    for override in ("compare.budgets=[4]", "optim.lr=5", "compare.retentoin=0.5"):
        with pytest.raises((UsageError, RecipeError), match=override.partition("=")[0][:14]):
            explain_again(after.folder, [override])
    explain_again(after.folder, ["compare.confidence=0.6", "compare.seeds=1"])
    assert "confidence: 0.6" in (after.folder / RunFiles.RECIPE).read_text()  # of what is told now
    assert compare(larger, log=SILENT).left == 0
    table = summarise([after.folder, after.folder]).splitlines()
    assert len(table) == 2 + 4 and "run | 4 | " in table[2]


@pytest.mark.parametrize(
    "key", ["data.train", "data.shots", "data.draw_seed", "seed", "run.dir", "evaluate"]
)
def test_an_arm_sets_nothing_that_the_comparison_decides(tmp_path: Path, key: str) -> None:
    for arm in ({"set": {key: 1}}, {"search": {key: [1]}}):
        with pytest.raises(RecipeError, match=rf"full: {key}: the comparison decides it"):
            comparison(tmp_path, arms=[{"kind": "zero_shot"}, {"kind": "full", **arm}])
    with pytest.raises(RecipeError, match=r"search"):
        comparison(tmp_path, arms=[{"kind": "full", "search": {"optim.lr": []}}])


def test_a_comparison_without_its_start_is_refused_before_it_costs_anything(
    tmp_path: Path,
) -> None:
    alone = comparison(tmp_path, arms=[{"kind": "full"}])
    for check in (check_comparison, compare):
        with pytest.raises(RecipeError, match="none of kind 'zero_shot'"):
            check(alone)


def test_a_comparison_that_failed_before_its_first_cell_keeps_nobody_out(tmp_path: Path) -> None:
    arms = [{"kind": "zero_shot"}]
    wanted = comparison(tmp_path, arms=arms, seeds=1, budgets=[8])
    values = wanted.model_dump(mode="json", by_alias=True)
    broken = Comparison.model_validate({**values, "data": {**values["data"], "train": 4}})
    with pytest.raises(RecipeError, match=r"compare\.budgets"):
        compare(broken, log=SILENT)
    outcome = compare(wanted, log=SILENT)
    assert outcome.left == 0
    with pytest.raises(UsageError, match="holds another run or comparison"):
        compare(broken, log=SILENT)
    (tmp_path / "trained").mkdir()
    (tmp_path / "trained" / RunFiles.RECIPE).write_text("name: a\n")
    with pytest.raises(UsageError, match="no cell of a comparison is there"):
        explain_again(tmp_path / "trained")


def test_a_cell_under_another_ones_name_is_refused(tmp_path: Path) -> None:
    wanted = comparison(tmp_path, arms=[{"kind": "zero_shot"}], seeds=1)
    Task(wanted, wanted.compare.arms[0], 8, tmp_path).run()
    [path] = tmp_path.glob("cells/*.json")
    other = changed(wanted, val_most=5)
    assert Cells(tmp_path, other).all() == [] and Cells(tmp_path, other).missing == 1
    assert Cells(tmp_path, other).unused == 1
    path.rename(path.with_name(f"zero_shot_8_0.{key(other, 'zero_shot')}.json"))
    with pytest.raises(ArtifactError, match="of another comparison; delete it"):
        Cells(tmp_path, other).all()


def test_the_winners_recipe_trains_on_all_labels(tmp_path: Path) -> None:
    wanted = comparison(tmp_path, wise=[0.5], arms=[{"kind": "zero_shot"}, FULL])
    cells = [cell("zero_shot", 0.2, budget=8)]
    cells += [
        replace(cell("full+wise", 0.9, budget=8), chosen={"optim.lr": 3e-3, "alpha": 0.5}),
        replace(cell("full", 0.5, budget=8), chosen={"optim.lr": 3e-3}),
    ]
    arms = gather(cells, confidence=0.95)
    choice = choice_of(arms)
    path = write_recommended(wanted, arms, choice, tmp_path)
    assert path is not None
    text, recipe = path.read_text(), load_recipe(path)
    check_recipe(recipe)
    assert isinstance(recipe.data, ScenesData) and recipe.data.limit is None
    assert recipe.optim.lr == 3e-3
    # 16 samples seen of 8 labels are two passes; of all 32 they are 64
    assert (recipe.optim.samples_seen, recipe.optim.global_batch) == (64, 8)
    assert [item.label for item in recipe.evaluate] == ["target", "before"]
    assert "--alpha 0.5" in text and f"--base {tmp_path / 'base'}" in text
    plain_arm = next(arm for arm in arms if arm.name == "full")
    assert recommended_recipe(wanted, plain_arm, samples=32, at=8) == recipe
    start = choice_of(arms[:1] if arms[0].name == "zero_shot" else arms[-1:])
    assert write_recommended(wanted, arms, start, tmp_path) is None and not path.exists()


def test_show_and_check_know_a_comparison(tmp_path: Path) -> None:
    wanted = comparison(tmp_path)
    path = str(tmp_path / "comparison.yaml")
    shown = CliRunner().invoke(app, ["show", path, "compare.seeds=3"])
    assert shown.exit_code == 0, shown.output
    (tmp_path / "shown.yaml").write_text(shown.stdout)
    again = load_comparison(tmp_path / "shown.yaml")
    assert again == changed(wanted, seeds=3)
    public = CliRunner().invoke(app, ["show", path, "--published"])
    assert public.exit_code == 0 and "arms:" in public.stdout, public.output

    checked = CliRunner().invoke(app, ["check", path])
    assert checked.exit_code == 0, checked.output
    found = json.loads(checked.stdout)["compare"]
    # two arms at a budget with two seeds; the one that learns has two trials and another seed
    assert (found["cells"], found["trainings"], found["labels"]) == (4, 3, 32)
    assert (found["arms"], found["retained"]) == (["zero_shot", "full"], ["before"])
    for wrong, said in (
        ("compare.budgets=[64]", "compare.budgets: 64; allowed: at most 32"),
        ("compare.arms=[{kind: zero_shot}, {kind: lp_ft}]", "lp_ft fits a head first"),
    ):
        refused = CliRunner().invoke(app, ["check", path, wrong])
        assert isinstance(refused.exception, RecipeError) and said in str(refused.exception)
